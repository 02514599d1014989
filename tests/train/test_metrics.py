"""Metrics against values worked out by hand, and against the libraries' own on the same predictions."""

import numpy as np
import pytest
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from sklearn import metrics as sklearn_metrics

from weightlora.train.families.answering import best_spans
from weightlora.train.families.classification import score_classes, score_numbers
from weightlora.train.families.seq2seq import rouge
from weightlora.train.families.squad import exact_match, f1, normalize, score_answers
from weightlora.train.families.tokens import score_tokens
from weightlora.train.tasks import TASKS


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


def test_spans_come_from_the_best_window_and_are_not_too_long():
    inside = [(-1, -1), (0, 3), (4, 7), (8, 13)]
    windows = Dataset.from_dict(
        {"example": [0, 0], "offsets": [inside, [(-1, -1), (4, 7), (8, 13), (14, 17)]], "cls": [0, 0]}
    )
    starts = np.array([[1.0, 5, 0, 0], [0.0, 0, 0, 9]])
    ends = np.array([[1.0, 0, 0, 5], [0.5, 0, 0, 2]])
    text = "Ann met Carla now"
    assert best_spans(starts, ends, windows, [text], 20, 30) == ([("now", 11.0)], [0.5])
    starts[1] = 0  # then the first window's: all of it, or what is short enough
    assert best_spans(starts, ends, windows, [text], 20, 30)[0] == [("Ann met Carla", 10.0)]
    assert best_spans(starts, ends, windows, [text], 20, 2)[0] == [("Ann", 5.0)]


def test_glue_metrics_are_scikit_learns_and_scipys():
    generator = np.random.default_rng(0)
    labels, chosen = generator.integers(0, 2, (2, 200))
    expected = {
        "matthews": sklearn_metrics.matthews_corrcoef(labels, chosen),
        "accuracy": np.mean(labels == chosen),
        "f1": sklearn_metrics.f1_score(labels, chosen),
    }
    assert score_classes(("matthews", "accuracy", "f1"), labels, chosen) == pytest.approx(expected)
    true, false = ((labels == 1) & (chosen == 1)).sum(), (labels != chosen).sum()
    assert expected["f1"] == pytest.approx(2 * true / (2 * true + false))
    numbers, predicted = generator.normal(size=(2, 50))
    assert score_numbers(numbers, predicted[:, None]) == {
        "pearson": pytest.approx(stats.pearsonr(numbers, predicted).statistic),
        "spearman": pytest.approx(stats.spearmanr(numbers, predicted).statistic),
    }
    assert score_numbers(numbers, np.ones(50)) == {"pearson": 0, "spearman": 0}
    wanted = {
        "cola": ("matthews",),
        "mrpc": ("accuracy", "f1"),
        "qqp": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        **dict.fromkeys(("mnli", "qnli", "rte", "sst2"), ("accuracy",)),
    }
    assert {name: TASKS[name].metrics for name in wanted} == wanted
    assert TASKS["mnli"].evaluation == ("validation_matched", "validation_mismatched")


def test_rouge_is_rouge_scores():
    texts, golds = ["the cats sat on the mat", "nothing"], ["a cat sat on a mat", "something else"]
    one = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(golds[0], texts[0])
    assert rouge(texts, golds) == {kind: pytest.approx(50 * one[kind].fmeasure) for kind in one}
    # by hand: "cat", "sat", "on" and "mat" of 6 and 6 words; the one common pair of 5 and 5 is "sat on", and "cat sat"
    assert (one["rouge1"].fmeasure, one["rouge2"].fmeasure) == (pytest.approx(4 / 6), pytest.approx(2 / 5))


def test_words_outside_count_in_accuracy_alone():
    scores = score_tokens(["O", "PER", "LOC"], np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 0, 1]))
    # found 3 (one right), wanted 3
    assert scores == {
        "f1": pytest.approx(1 / 3),
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "accuracy": 0.4,
    }
