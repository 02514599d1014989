from pathlib import Path

import numpy as np
import pytest
from recipes import BAD, GOOD, arguments, family_arguments, write_parquet

from weightlora.train import fit, parse, prepare

CHATS = [
    {"messages": [{"role": "user", "content": "a film"}, {"role": "assistant", "content": text}]}
    for text in (GOOD, BAD)
]


FORMS = {
    "messages": CHATS,
    "completion": [{"prompt": "Review: ", "completion": text} for text in (GOOD, BAD)],
    "text": [{"text": text} for text in (GOOD, BAD)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_causal_lm_learns_the_answer_alone(world: Path, tmp_path: Path, form: str):
    file = tmp_path / "rows.parquet"
    write_parquet(file, FORMS[form] * 4)
    more = ["--train_file", file, "--validation_file", file]
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more)))
    batch = job.work.collate([job.work.train[i] for i in range(2)])
    learned = [job.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    expected = {"messages": "assistant: {}</s>", "completion": "{}</s>", "text": "<s>{}</s>"}[form]
    start = "" if form != "messages" else "assistant: "
    assert learned == [expected.format(text).removeprefix(start) for text in (GOOD, BAD)]
    result = fit(job)
    found = result.metrics["validation"]
    assert found["perplexity"] == pytest.approx(2.718281828 ** found["held_out_loss"], rel=0.02)


def test_texts_may_be_packed_into_blocks(world: Path, tmp_path: Path):
    given = [*family_arguments(world, "causal-lm", tmp_path), "--packing", "--max_length", "16"]
    job = prepare(parse(given))
    tokenizer, rows = job.tokenizer, [GOOD, BAD] * 4
    stream = [token for text in rows for token in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    assert [row["input_ids"] for row in job.work.train] == [stream[i : i + 16] for i in range(0, len(stream) - 15, 16)]
    found = fit(job, write=False).metrics["validation"]
    assert found["perplexity"] == pytest.approx(np.exp(found["held_out_loss"]))
