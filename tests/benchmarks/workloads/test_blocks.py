"""Language modelling: texts follow each other, and blocks are counted and not texts."""

from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.blocks import language_modelling
from recipes import save_model

ROWS = [{"text": "a fine film"}, {"text": "a dull film " * 20}]


def test_texts_are_packed_and_blocks_are_counted_and_not_texts(tmp_path, monkeypatch, job):
    place = save_model("llama", tmp_path / "llama")
    splits = dict.fromkeys(("train", "validation", "test"), ROWS)
    made = language_modelling(lambda: place, lambda: splits, {"pad_token": "</s>"})
    monkeypatch.setitem(WORKLOADS, "own", lambda: made)
    prepared = job("own", train_examples=1, max_length=16)
    tokenizer = prepared.tokenizer
    stream = [*tokenizer("a fine film").input_ids, tokenizer.eos_token_id]
    assert len(stream) < 16, "one block needs the second text"
    stream += tokenizer("a dull film " * 20).input_ids
    assert prepared.plan.rows == {"train": 1, "test": 2}
    assert list(prepared.work.train["input_ids"]) == [stream[:16]]
    assert list(prepared.work.evaluation["test"]["input_ids"]) == [stream[:16], stream[16:32]]
    assert prepared.work.metric == "perplexity" and prepared.plan.adapters == 14
