"""SQuAD's official scores, worked out by hand."""

import pytest

from weightlora.train.families.squad import exact_match, f1, normalize, score_answers


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "overlap"),
    [
        ("The Denver Broncos!", "denver  broncos", 1, 1),  # case, punctuation, article, white space
        ("a cat and an owl", "cat and owl", 1, 1),
        ("theatre", "the atre", 0, 0),  # an article is a word of its own
        ("in 1867, Paris", "Paris", 0, 0.5),  # 1 of 3 words, and 1 of 1
        ("the the", "a", 1, 1),  # nothing but articles on both sides
        ("Paris", "the", 0, 0),
        ("no no no yes", "no yes yes", 0, 4 / 7),  # 2 common words of 4 and 3
        ("U.S.A.", "USA", 1, 1),
    ],
)
def test_squad_by_hand(answer: str, gold: str, exact: float, overlap: float):
    assert exact_match(answer, gold) == exact and f1(answer, gold) == pytest.approx(overlap)


def test_squad_v1_takes_the_best_of_several_answers():
    scores = score_answers(
        ["Santa Clara", "gold", ""], [["Santa Clara, California", "Santa Clara"], ["old gold"], ["x"]]
    )
    assert scores == {"exact_match": pytest.approx(100 / 3), "f1": pytest.approx(100 * (1 + 2 / 3) / 3)}
    assert normalize("An  apple, a day.") == "apple day"


def test_squad_v2_by_hand():
    # answered right; answered half right; wrongly held to have no answer; rightly so; answered without an answer
    answers = ["in Paris", "old", "", "", "x"]
    golds = [["Paris", "in Paris"], ["old man"], ["Rome"], [], []]
    scores = score_answers(answers, golds)
    assert scores == {
        "exact_match": pytest.approx(40),
        "f1": pytest.approx(100 * (1 + 2 / 3 + 0 + 1 + 0) / 5),
        "HasAns_exact": pytest.approx(100 / 3),
        "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 3),
        "NoAns_exact": 50,
        "NoAns_f1": 50,
    }
    # the best threshold answers the first two alone: 1 + 2/3 + 0 + 1 + 1
    forced = score_answers(["in Paris", "old", "Bonn", "y", "x"], golds, [-3.0, -2.0, 0.5, 2.0, 1.0])
    assert forced["best_f1"] == pytest.approx(100 * (1 + 2 / 3 + 2) / 5) and forced["best_exact"] == pytest.approx(60)
