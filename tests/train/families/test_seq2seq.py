import pytest
from rouge_score.rouge_scorer import RougeScorer

from weightlora.train.families.seq2seq import rouge


def test_rouge_is_rouge_scores():
    texts, golds = ["the cats sat on the mat", "nothing"], ["a cat sat on a mat", "something else"]
    one = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(golds[0], texts[0])
    assert rouge(texts, golds) == {kind: pytest.approx(50 * one[kind].fmeasure) for kind in one}
    # by hand: "cat", "sat", "on" and "mat" of 6 and 6 words; the one common pair of 5 and 5 is "sat on", and "cat sat"
    assert (one["rouge1"].fmeasure, one["rouge2"].fmeasure) == (pytest.approx(4 / 6), pytest.approx(2 / 5))
