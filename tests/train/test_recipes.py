"""Every recipe plans and runs, offline, on tiny twins of its model and data; the page lists them all."""

import re
from pathlib import Path

import pytest
from peft import PeftModel
from recipe_list import BEGIN, END, PAGE, ROOT, list_recipes, recipe_paths
from transformers import AutoModelForSeq2SeqLM

from weightlora.adapters import find_adapters
from weightlora.cli import main
from weightlora.train.arguments import parse
from weightlora.train.result import read_result

MODELS = {"deberta-glue": "deberta", "deberta-squad": "deberta", "bart-summarization": "bart", "llama-glue": "llama"}
SMALL = ["--max_steps", "4", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1", "--use_cpu"]
SMALL += ["--select_steps", "3", "--max_length", "96", "--keep", "3"]
OF_FAMILY = {"bart-summarization": ["--max_target_length", "8"], "deberta-squad": ["--stride", "16"]}
SMALL += ["--generation_num_beams", "2", "--save_strategy", "no", "--logging_steps", "1", "--warmup_steps", "0"]
PATHS = recipe_paths()


def tiny(path: Path, world: Path) -> list[str]:
    task = parse(["--config", str(path), "--output_dir", "x"]).data.task
    family = path.parent.name
    data = world / "glue" if family.endswith("glue") else world / str(task)
    pad = ["--pad_token", "</s>"] if family == "llama-glue" else []
    return [
        "--config",
        str(path),
        "--model",
        str(world / MODELS[family]),
        "--dataset",
        str(data),
        *pad,
        *SMALL,
        *OF_FAMILY.get(family, []),
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_runs_on_its_tiny_twin(path: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["train", *tiny(path, world), "--output_dir", str(tmp_path / "out")]
    assert main([*arguments, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"adapters +\d+ found, 3 are kept", shown), shown
    assert re.search(r"steps +4: 3 before the choice, 1 after it", shown) and not (tmp_path / "out").exists()
    assert main(arguments) == 0
    result = read_result(tmp_path / "out")
    assert result.adapters_after == len(result.kept) == 3 and result.steps == 4
    assert result.method == "weightlora-paper" and result.seed == 18
    expected = {"validation_matched", "validation_mismatched"} if path.stem == "mnli" else {"validation"}
    assert result.metrics.keys() == expected
    assert result.metric in result.metrics[min(expected)]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"adapter", "result.json", "selection.json", "history.jsonl", "log.jsonl"}


def test_the_settings_are_the_papers():
    training = {}
    for path in PATHS:
        for method in ("lora", "weightlora-paper", "weightlora-paper-plus"):
            recipe = parse(["--config", str(path), "--method", method, "--output_dir", "x"])
            training[path.stem, method] = recipe.training.learning_rate
            assert recipe.training.per_device_train_batch_size * recipe.training.gradient_accumulation_steps == 192
            assert (recipe.method.alpha, recipe.method.dropout, recipe.training.weight_decay) == (32, 0.05, 0.01)
    rates = [training["cola", method] for method in ("lora", "weightlora-paper", "weightlora-paper-plus")]
    assert rates == [8e-4, 5e-4, 5e-4]
    assert training["squad", "weightlora-paper"] == 1e-4 and training["stsb", "weightlora-paper"] == 8e-4


def test_a_summarizer_loads_with_plain_peft(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = ROOT / "recipes" / "bart-summarization" / "xsum.yaml"
    assert main(["train", *tiny(path, world), "--output_dir", str(tmp_path), "--method", "weightlora"]) == 0
    kept = read_result(tmp_path).kept
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(world / "bart"), tmp_path / "adapter")
    assert [adapter.name for adapter in find_adapters(model, check=False)] == kept


def test_the_page_lists_every_recipe():
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0] == list_recipes()
