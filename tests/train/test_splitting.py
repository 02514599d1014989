import hashlib
import random

import pytest

from weightlora.errors import DataError
from weightlora.train.splitting import before_answer, distinct, hold_out, split


def rows(*texts: str) -> list[dict]:
    return [{"text": text, "label": index % 2} for index, text in enumerate(texts)]


def test_repeated_texts_are_dropped_and_the_first_stays():
    kept = distinct(rows("Good film", "bad", "good  FILM", "bad\n", "Good, film"))
    assert kept == [
        {"text": text, "label": label} for text, label in (("Good film", 0), ("bad", 1), ("Good, film", 0))
    ]


def test_the_split_is_by_the_hash_of_the_text_whatever_the_order():
    texts = [f"text {index}" for index in range(10)]
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    sizes = {"test": 3, "train": 5}
    splits = split(rows(*texts), sizes)
    assert [row["text"] for row in splits["test"]] == ordered[:3]
    assert [row["text"] for row in splits["train"]] == ordered[3:8]
    shuffled = rows(*texts)
    random.shuffle(shuffled)
    assert split(shuffled, sizes) == splits


def test_a_chat_goes_by_what_is_before_its_answer():
    system, user, answer = ({"role": role, "content": "a"} for role in ("system", "user", "assistant"))
    for asked in ([user], [system, user], [user, answer, user]):
        assert before_answer("messages", [*asked, answer]) == asked
    for alone in ([system, answer], [answer], [], None, "text", ["text"]):
        assert before_answer("messages", alone) == alone
    assert before_answer("tokens", [user, answer]) == [user, answer]


@pytest.mark.parametrize(
    ("repeated", "held"),
    [
        ({"one": 99, "other": 1}, {"other"}),  # the only one that fits
        ({"one": 60, "other": 40}, {"other"}),  # none fits: the one with the fewest rows
        ({"often": 961} | {f"text {i}": 1 for i in range(39)}, 4),  # a tenth of the texts, so that others are trained
        ({f"text {i}": 1 + i for i in range(40)}, 4),
    ],
)
def test_repeated_texts_do_not_make_validation_the_larger_part(repeated: dict[str, int], held: set[str] | int):
    texts = [text for text, count in repeated.items() for _ in range(count)]
    train, validation = hold_out(texts, 0.1)
    found = {texts[index] for index in validation}
    assert found == held if isinstance(held, set) else len(found) <= held
    assert sorted(train + validation) == list(range(len(texts))) and not found & {texts[index] for index in train}
    assert len(validation) <= max(0.1 * len(texts), min(repeated.values())) and found


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="2 rows are not enough"):
        split(rows("a", "b"), {"test": 2, "train": 1})
