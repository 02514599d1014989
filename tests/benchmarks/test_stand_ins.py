"""What stands in for the paper's data: marks are found where they are, and files are in the official formats."""

import json

import pytest
from benchmarks import stand_ins


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("I give it 7/10.", ["7/10"]),
        ("8.5 out of ten, or 10/10 for the end", ["8.5 out of ten", "10/10"]),
        ("3 OUT OF 10", ["3 OUT OF 10"]),
        ("a 9 /10", ["9 /10"]),
        ("born 4/10/1980", []),
        ("17/10 and 7/100 and 1/7/10", []),
        ("10 years", []),
    ],
)
def test_every_mark_is_an_answer(text, marks):
    made = stand_ins.paragraph(text)
    [question] = made["qas"]
    assert [answer["text"] for answer in question["answers"]] == marks
    assert all(text[answer["answer_start"] :].startswith(answer["text"]) for answer in question["answers"])
    assert made["context"] == text and question["is_impossible"] is not bool(marks)
    assert question["id"] == stand_ins.paragraph(text)["qas"][0]["id"] != stand_ins.paragraph("x")["qas"][0]["id"]


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """Eight reviews of each split, of which every fourth has a mark, and a folder for what is written."""

    def load(name):
        texts = [f"{name} {i} <br />{'5/10' if i % 4 == 0 else 'dull'}" for i in range(8)]
        rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
        return {"train": rows, "validation": [], "test": rows[:5]}

    monkeypatch.setattr(stand_ins, "load_reviews", load)
    monkeypatch.setattr(stand_ins, "PLACE", tmp_path / "paper")
    return tmp_path / "paper"


def contexts(path):
    [article] = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [paragraph["context"] for paragraph in article["paragraphs"]]


def test_every_second_context_of_version_2_has_no_mark(reviews):
    stand_ins.write_ratings()
    assert contexts(reviews / "ratings" / "train.json") == ["imdb 0 5/10", "imdb 4 5/10"]
    mixed = ["imdb 0 5/10", "imdb 1 dull", "imdb 4 5/10", "imdb 2 dull"]
    assert contexts(reviews / "ratings_v2" / "train.json") == mixed
    assert contexts(reviews / "ratings_v2" / "validation.json") == mixed, "our test split"


def test_sentences_have_the_columns_of_sst2(reviews):
    stand_ins.write_sentences()
    lines = (reviews / "rotten_tomatoes" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    assert json.loads(lines[1]) == {"sentence": "rotten_tomatoes 1 <br />dull", "label": 1}
    assert len((reviews / "rotten_tomatoes" / "validation.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_a_link_goes_to_the_latest_place(reviews, tmp_path):
    reviews.mkdir()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        stand_ins.link("model", tmp_path / name)
    assert (reviews / "model").is_symlink() and (reviews / "model").resolve() == tmp_path / "new"
