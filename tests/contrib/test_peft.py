"""What we offer to PEFT chooses what our own probe chooses, and needs nothing of ours.

The example's own tests, in `contrib/peft/tests`, run beside these (`testpaths` in pyproject.toml).
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import WORDS, adamw, batch, lora_bert, lora_gpt2, save_causal, save_classifier, sentence
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from test_docs import blocks

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "contrib" / "peft"
EXAMPLE = PLACE / "examples" / "lora_module_selection"
PAGE = PLACE / "docs" / "source" / "developer_guides" / "lora_module_selection.md"
OTHERS = {"datasets", "peft", "pytest", "torch", "transformers", "module_selection"}  # beside Python's own


@pytest.fixture(autouse=True)
def example_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)


@pytest.mark.parametrize("budget", [0.25, 0.5])
@pytest.mark.parametrize("make", [lora_bert, lora_gpt2, lambda: lora_bert(layers=3, use_dora=True)])
def test_it_scores_and_chooses_as_our_default_does(make, budget):
    from module_selection import gradient_norms, lora_layers, relative_to_blocks, select_target_modules

    batches = [batch(step) for step in range(5)]
    model = make()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep_parameters=budget))
    selector.probe(batches)
    candidates: PeftModel = make()
    scores = relative_to_blocks(gradient_norms(candidates, lora_layers(candidates), batches[:4]))
    assert scores == pytest.approx(selector.scores, rel=1e-4)
    assert len({round(score, 6) for score in scores.values()}) > len(scores) / 2
    assert select_target_modules(candidates, batches, budget) == selector.kept


def test_the_table_of_the_readme_has_the_stored_results():
    tasks = json.loads((ROOT / "docs" / "results" / "summary.json").read_text(encoding="utf-8"))["tasks"]
    lines = (EXAMPLE / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    named = {
        "Rotten Tomatoes": "rotten-tomatoes-all",
        "VADER tweets": "vader-tweets-all",
        "film reviews": "film-reviews",
        "spam": "spam",
        "supersenses": "supersenses",
    }
    labels = ("lora", "probe", "random-like-probe", "peft-default", "lora-equal")
    assert [row[0] for row in rows] == ["task", "---", "adapter parameters", *named]
    for name, *cells in rows[3:]:
        entries = [tasks[named[name]][label] for label in labels]
        assert [f"{entry['loss']['mean']:.3f}" for entry in entries] == cells
        assert [f"{entry['trainable_parameters']:,}" for entry in entries] == rows[2][1:]
        assert {entry["seeds"] for entry in entries} == {5}


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
    assert PAGE.read_text(encoding="utf-8").startswith("<!--Copyright 2026 The HuggingFace Team.")


@pytest.mark.parametrize("task", ["causal", "classification"])
def test_the_script_trains_and_saves_the_adapters_it_selected(tmp_path, monkeypatch, task):
    import module_selection_finetuning

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (save_causal if task == "causal" else save_classifier)(tmp_path / "base", WORDS)
    rows = ({"text": sentence(index), "label": index % 2} for index in range(16))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = f"--base_model {tmp_path}/base --data_path {tmp_path}/rows.jsonl --output_dir {tmp_path}/out"
    command += f" --task {task} --max_steps 3 --batch_size 4"
    selected = module_selection_finetuning.train(module_selection_finetuning.parse_args(command.split()))
    assert selected
    kind = AutoPeftModelForCausalLM if task == "causal" else AutoPeftModelForSequenceClassification
    loaded = kind.from_pretrained(tmp_path / "out")
    assert [adapter.name for adapter in find_adapters(loaded, check=False)] == selected


def test_the_page_for_the_docs_runs(tmp_path, monkeypatch):
    """Its names on the Hub are folders here."""
    monkeypatch.chdir(tmp_path)
    save_classifier(tmp_path / "google-bert" / "bert-base-uncased", WORDS, layers=2)
    (tmp_path / "stanfordnlp" / "imdb").mkdir(parents=True)
    rows = ({"text": sentence(index), "label": index % 2} for index in range(16))
    (tmp_path / "stanfordnlp" / "imdb" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    namespace: dict = {}
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        exec(block.code, namespace)
    selected = [adapter.name for adapter in find_adapters(namespace["model"])]
    assert 0 < len(selected) < 13
    assert selected == list(namespace["config"].target_modules)
