"""Recipes, sweeps and settings that nobody would write: each is planned, or refused in one sentence."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.sweep import plan_sweep
from fuzzing import ODD, damaged, fuzz, outcome_of, texts, values
from hypothesis import given
from hypothesis import strategies as st
from recipes import LABELLED, save_model, write_rows
from recipes import caches as caches

from weightlora.compare.comparison import Comparison, read_comparison
from weightlora.train import parse, prepare
from weightlora.train.arguments import GROUPS
from weightlora.train.methods import METHODS

# Not drawn: what starts other machines or other processes, and what reads or writes at a place of its own.
ELSEWHERE = {
    "local_rank",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "parallelism_config",
    "ddp_backend",
    "accelerator_config",
}
NAMES = sorted({name for group in GROUPS for name, one in group.__dataclass_fields__.items() if one.init} - ELSEWHERE)
OURS = sorted({name for group in GROUPS[:3] for name in group.__dataclass_fields__} - {"model"})
PATTERNS = [
    "(a+)+$",
    "(",
    ".*(query|key)_proj",
    "(?i)q",
    "(.*)*x",
    "[",
    "\\",
    "(?P<a>x)(?P<a>y)",
    "x{99999999999}",
    "all",
]
OPTIONS = ["bias", "rank_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "use_rslora", "keep"]
OPTIONS += ["init_lora_weights", "modules_to_save", "selection", "rounds", "omega_lr", "expand", "seed", "seeed"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    save_model("deberta", root / "deberta")
    write_rows(root / "rows.jsonl", [{**row, "text": f"{row['text']} {i}"} for i in range(3) for row in LABELLED])
    return root


@pytest.fixture(autouse=True)
def elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of a recipe that are relative lead into the folder of the tests."""
    (place / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(place / "here")


def good(place: Path) -> dict[str, Any]:
    settings = {"task": "text-classification", "model": str(place / "deberta"), "method": "weightlora", "rank": 2}
    settings |= {"train_file": str(place / "rows.jsonl"), "validation_file": str(place / "rows.jsonl"), "keep": 3}
    settings |= {"target_modules": ["query_proj", "key_proj"], "max_steps": 8, "select_steps": 2, "use_cpu": True}
    return settings | {"max_length": 32, "output_dir": str(place / "out"), "learning_rate": 1e-3}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a recipe with values that do not belong there."""
    found: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(
            st.sampled_from(["ours", "ours", "ours", "any", "key", "pattern", "options", "columns", "structure"])
        )
        if kind == "ours":
            found[draw(st.sampled_from(OURS))] = draw(values)
        elif kind == "any":
            found[draw(st.sampled_from(NAMES))] = draw(values)
        elif kind == "key":
            found[draw(texts)] = draw(values)
        elif kind == "pattern":
            found["target_modules"] = [draw(st.sampled_from(PATTERNS) | texts)]
        elif kind == "options":
            found["method"] = draw(st.sampled_from(sorted(METHODS)))
            found["method_options"] = draw(st.dictionaries(st.sampled_from(OPTIONS), values, max_size=2))
        elif kind == "columns":
            found["columns"] = draw(
                st.dictionaries(st.sampled_from(["text", "label", "pair", "x"]), values, max_size=2)
            )
        else:
            found[draw(st.sampled_from(["base", "by_method", "method"]))] = draw(values)
    return found


def plan_of(place: Path, text: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=place) as directory:
        recipe = Path(directory) / "recipe.yaml"
        recipe.write_bytes(text)
        outcome_of(lambda: prepare(parse(["--config", str(recipe)])).plan)
        assert [path.name for path in Path(directory).iterdir()] == ["recipe.yaml"]
    assert not (place / "out").exists()


@given(changes())
@fuzz(40)
def test_odd_settings_are_planned_or_refused(place: Path, changed: dict[str, Any]):
    plan_of(place, yaml.safe_dump({**good(place), **changed}).encode("utf-8", "surrogatepass"))


@given(st.data())
@fuzz(15)
def test_damaged_recipes_are_planned_or_refused(place: Path, data: st.DataObject):
    plan_of(place, data.draw(damaged(yaml.safe_dump(good(place)).encode())))


@st.composite
def odd_sweeps(draw: st.DrawFn) -> dict[str, Any]:
    content: dict[str, Any] = {
        "columns": {"films": {"config": "recipe.yaml"}, "more": {"config": "recipe.yaml", "seed": 3}},
        "grid": [{"method": ["lora", "random"], "rank": [1, 2]}, {"method": "weightlora", "keep": 3}],
        "seeds": [1, 2],
        "with": {"max_steps": 3},
    }
    column = content["columns"]["films"]
    where: Any = draw(st.sampled_from([content, content["columns"], column, *content["grid"], content["with"]]))
    key = draw(st.sampled_from([*where, "new"]) | texts)
    where[key] = draw(values | st.lists(values, max_size=2))
    if draw(st.booleans()) and isinstance(content["columns"], dict):
        content["columns"][draw(st.sampled_from(ODD) | st.sampled_from(["../../x", "a/b", "..", "C:\\x"]))] = column
    return content


@given(odd_sweeps(), st.booleans(), st.data())
@fuzz(100)
def test_sweeps_are_planned_in_their_root_or_refused(
    place: Path, content: dict[str, Any], damage: bool, data: st.DataObject
):
    with tempfile.TemporaryDirectory(dir=place) as directory:
        (Path(directory) / "recipe.yaml").write_text("rank: 4\n")
        sweep = Path(directory) / "sweep.yaml"
        text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
        sweep.write_bytes(data.draw(damaged(text)) if damage else text)
        root = Path(directory) / "runs" / "here"
        runs = outcome_of(lambda: plan_sweep(sweep, root))
        for run in runs or ():
            task, results, label, file = run.output.relative_to(root).parts
            assert results == "results" and ".." not in (task, label) and file == f"seed-{run.seed}.json"
        assert len({run.output for run in runs or ()}) == len(runs or ())


@given(st.data())
@fuzz(100)
def test_the_settings_of_a_comparison_are_read_or_refused(place: Path, data: st.DataObject):
    entry = {"learning_rates": [1e-3, 2e-3], "settings": {"task": "text-classification", "model": "m"}}
    content: dict[str, Any] = {"format": 1, "seeds": 2, "data": {"train_file": "0" * 64}, "shared": {}}
    content["methods"] = {"lora": entry, "random": json.loads(json.dumps(entry))}
    where = data.draw(st.sampled_from([content, content["methods"], entry, entry["settings"], content["data"]]))
    where[data.draw(st.sampled_from([*where, "new"]) | texts)] = data.draw(values)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        (Path(directory) / "settings.json").write_bytes(data.draw(damaged(text) | st.just(text)))

        def use() -> Comparison:
            comparison = read_comparison(Path(directory))
            comparison.runs({name: rates[0] for name, rates in comparison.rates.items()})
            comparison.tuning_runs()
            return comparison

        comparison = outcome_of(use)
        if comparison is not None and comparison.seeds < 1000:
            for run in comparison.tuning_runs():
                assert run.output.resolve().is_relative_to(Path(directory).resolve())
