from benchmarks.workloads.minilm import tokenize
from transformers import AutoTokenizer, DataCollatorWithPadding

from weightlora.train.demo import minilm_path


def rows(*texts: str) -> list[dict]:
    return [{"text": text, "label": index % 2} for index, text in enumerate(texts)]


def test_tokenized_rows_collate_into_batches_with_labels():
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    tokenized = tokenize(rows("good", "a bad film it is", "word " * 100), tokenizer, max_length=16)
    assert [len(row["input_ids"]) for row in tokenized] == [3, 7, 16]
    assert [row["labels"] for row in tokenized] == [0, 1, 0]
    batch = DataCollatorWithPadding(tokenizer)(tokenized)
    assert batch["input_ids"].shape == (3, 16)
    assert batch["attention_mask"].sum(1).tolist() == [3, 7, 16]
    assert batch["labels"].tolist() == [0, 1, 0]
