"""What we offer to PEFT chooses what our own update credit chooses, and needs nothing of ours.

The example's own tests, in `contrib/peft/tests`, run beside these (`testpaths` in pyproject.toml).
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loops import make_trainer
from models import WORDS, batch, lora_bert, save_causal, save_classifier, sentence, tiny_bert
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from test_docs import blocks

from weightlora import WeightLoraCallback, WeightLoraConfig
from weightlora.adapters import find_adapters

PLACE = Path(__file__).parents[2] / "contrib" / "peft"
EXAMPLE = PLACE / "examples" / "weightlora"
OTHERS = {"datasets", "peft", "pytest", "torch", "transformers", "weightlora_callback"}  # beside Python's own
SETTINGS = {
    "plain": {},
    "clipped and accumulated": {
        "max_grad_norm": 0.1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "weight_decay": 0.1,
    },
    "bfloat16": {"bf16": True},
}


@pytest.fixture(autouse=True)
def example_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)


def example_callback(keep: int, select_steps: int):
    from weightlora_callback import WeightLoraCallback as Example

    return Example(keep=keep, select_steps=select_steps)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_it_chooses_and_trains_as_our_update_credit_does(tmp_path, settings):
    ours = WeightLoraCallback(WeightLoraConfig(keep=5, keep_parameters=10**6, select_steps=4))
    expected = make_trainer(tmp_path, lora_bert(), ours, **settings)
    expected.train()
    example = example_callback(keep=5, select_steps=4)
    run = make_trainer(tmp_path, lora_bert(), example, **settings)
    run.train()

    scores = next(entry for entry in reversed(ours.selector.history) if len(entry.get("score", ())) == 12)["score"]
    assert [float(credit) for credit in example.credit.values()] == pytest.approx(scores, rel=1e-4)
    assert example.kept == ours.selector.kept == [adapter.name for adapter in find_adapters(run.model)]
    for mine, theirs in zip(run.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)

    survivors = {id(p) for p in run.model.parameters() if p.requires_grad}
    assert len(survivors) == 2 * 5 + 2, "A and B of five adapters, and the head"
    assert {id(p) for group in run.optimizer.param_groups for p in group["params"]} == survivors
    assert {id(p) for p in run.optimizer.state} == survivors

    run.model.eval().save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny_bert(), tmp_path / "adapter").eval()
    assert [adapter.name for adapter in find_adapters(loaded, check=False)] == example.kept
    # Trainer leaves its autocast on the model that it trained.
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=settings.get("bf16", False)):
        assert torch.equal(loaded(**batch()).logits.float(), run.model(**batch()).logits.float())


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def test_it_imports_nothing_of_ours():
    files = sorted(PLACE.rglob("*.py"))
    assert len(files) == 3
    for path in files:
        assert set(imported_packages(path)) - OTHERS <= sys.stdlib_module_names, path


def test_each_file_has_the_licence_header_of_peft():
    for path in PLACE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "# Copyright 2026-present the HuggingFace Inc. team."
        assert lines[2] == '# Licensed under the Apache License, Version 2.0 (the "License");'
    page = PLACE / "docs" / "source" / "developer_guides" / "weightlora.md"
    assert page.read_text(encoding="utf-8").startswith("<!--Copyright 2026 The HuggingFace Team.")


@pytest.mark.parametrize("task", ["causal", "classification"])
def test_the_script_trains_and_saves_the_adapters_it_kept(tmp_path, monkeypatch, task):
    import weightlora_finetuning

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (save_causal if task == "causal" else save_classifier)(tmp_path / "base", WORDS)
    rows = ({"text": sentence(index), "label": index % 2} for index in range(16))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = f"--base_model {tmp_path}/base --data_path {tmp_path}/rows.jsonl --output_dir {tmp_path}/out"
    command += f" --task {task} --keep 3 --select_steps 2 --max_steps 3 --batch_size 4"
    kept = weightlora_finetuning.train(weightlora_finetuning.parse_args(command.split()))
    assert len(kept) == 3
    kind = AutoPeftModelForCausalLM if task == "causal" else AutoPeftModelForSequenceClassification
    loaded = kind.from_pretrained(tmp_path / "out")
    assert [adapter.name for adapter in find_adapters(loaded, check=False)] == kept


def test_the_page_for_the_docs_runs(tmp_path, monkeypatch):
    """Its names on the Hub are folders here."""
    monkeypatch.chdir(tmp_path)
    save_classifier(tmp_path / "google-bert" / "bert-base-uncased", WORDS, layers=2)
    (tmp_path / "stanfordnlp" / "imdb").mkdir(parents=True)
    rows = ({"text": sentence(index), "label": index % 2} for index in range(16))
    (tmp_path / "stanfordnlp" / "imdb" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = (PLACE / "docs" / "source" / "developer_guides" / "weightlora.md").read_text(encoding="utf-8")
    namespace: dict = {}
    for block in blocks(page):
        code = block.code.replace("max_steps=500", "max_steps=4").replace("select_steps=100", "select_steps=2")
        exec(code, namespace)
    assert len(namespace["weightlora"].kept) == 9
    assert [adapter.name for adapter in find_adapters(namespace["model"])] == namespace["weightlora"].kept
