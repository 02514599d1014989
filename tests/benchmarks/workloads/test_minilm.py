import torch
from benchmarks.workloads.minilm import minilm_lora, tokenize
from transformers import AutoTokenizer, DataCollatorWithPadding

from weightlora.adapters import find_adapters
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


def test_minilm_has_lora_on_its_36_linear_modules_and_one_start_a_seed():
    first, again, other = (minilm_lora(seed, rank=2) for seed in (3, 3, 4))
    names = [adapter.name for adapter in find_adapters(first)]
    assert len(names) == 36
    assert names[0] == "bert.encoder.layer.0.attention.self.query" and not any("pooler" in name for name in names)
    trained = {name: value for name, value in first.named_parameters() if value.requires_grad}
    assert sum("modules_to_save" in name for name in trained) == 2 and len(trained) == 2 * 36 + 2
    same, different = dict(again.named_parameters()), dict(other.named_parameters())
    assert all(torch.equal(value, same[name]) for name, value in trained.items())
    drawn = [
        name for name in trained if "lora_A" in name or (name.endswith("default.weight") and "classifier" in name)
    ]
    assert not any(torch.equal(trained[name], different[name]) for name in drawn)
