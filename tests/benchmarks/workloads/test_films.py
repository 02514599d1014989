"""Reviews and plots of films: the real data, dealt by film."""

from collections import Counter
from itertools import combinations

import pytest
from benchmarks.workloads import films

from weightlora.train.splitting import distinct


def test_the_real_films():
    splits = films.load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == films.SPLIT_SIZES
    rows = [row for split in splits.values() for row in split]
    assert len(distinct(rows)) == len(rows) and all(row["text"].strip() for row in rows)
    for one, other in combinations(splits.values(), 2):
        assert not {row["film"] for row in one} & {row["film"] for row in other}
    for name, split in splits.items():
        shares = {films.CLASSES[label]: n / len(split) for label, n in Counter(row["label"] for row in split).items()}
        assert shares == pytest.approx({"fresh": 0.52, "rotten": 0.40, "plot": 0.08}, abs=0.03), name
    assert splits["test"][0]["text"].startswith("Though the film never veers from its comic course"), (
        "on every machine"
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("pianist_the", "pianist"),
        ("the_pianist", "pianist"),
        ("a_walk_to_remember", "walktoremember"),
        ("lilo__stitch", "lilostitch"),
        ("el_crimen_del_padre_amaro", "crimeofpadreamaro"),
        ("theremin", "theremin"),
    ],
)
def test_one_film_has_one_title(name: str, title: str):
    assert films.title_of(name) == title
