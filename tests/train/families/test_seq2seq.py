from pathlib import Path

import pytest
from recipes import BAD, GOOD, arguments, files_of, write_rows
from rouge_score.rouge_scorer import RougeScorer

from weightlora.train import parse, prepare
from weightlora.train.families.seq2seq import rouge


def test_rouge_is_rouge_scores():
    texts, golds = ["the cats sat on the mat", "nothing"], ["a cat sat on a mat", "something else"]
    one = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(golds[0], texts[0])
    assert rouge(texts, golds) == {kind: pytest.approx(50 * one[kind].fmeasure) for kind in one}
    # by hand: "cat", "sat", "on" and "mat" of 6 and 6 words; the one common pair of 5 and 5 is "sat on", and "cat sat"
    assert (one["rouge1"].fmeasure, one["rouge2"].fmeasure) == (pytest.approx(4 / 6), pytest.approx(2 / 5))


def test_targets_may_be_longer_than_padded_inputs(world: Path, rows: Path, tmp_path: Path):
    write_rows(rows, [{"source": f"{GOOD} {i}", "target": " ".join([BAD] * (1 + i % 2))} for i in range(4)])
    given = arguments(world, "seq2seq", "bart", tmp_path / "out", *files_of(rows), "--max_length", "8")
    job = prepare(parse([*given, "--max_target_length", "24", "--pad_to_max_length", "true"]))
    batch = job.work.collate([job.work.train[i] for i in range(2)])
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 24)


def test_targets_that_rouge_cannot_read_are_warned_of(world: Path, rows: Path, tmp_path: Path):
    text = "\u0445\u043e\u0440\u043e\u0448\u0438\u0439 \u0444\u0438\u043b\u044c\u043c"
    assert set(rouge([text], [text]).values()) == {0.0}
    write_rows(rows, [{"source": f"{GOOD} {i}", "target": f"{text} {i}"} for i in range(4)])
    with pytest.warns(UserWarning, match="ROUGE reads no others"):
        prepare(parse(arguments(world, "seq2seq", "bart", tmp_path / "out", *files_of(rows))))
