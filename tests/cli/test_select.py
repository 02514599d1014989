"""`weightlora select` as a newcomer meets it."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from peft import PeftModel
from recipes import save_model, write_rows
from transformers import AutoModelForSequenceClassification

from weightlora import Selection, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
QUICK = ["--max_steps", "6", "--select_steps", "2", "--max_length", "64", "--use_cpu", "--keep", "3"]
QUICK += ["--per_device_train_batch_size", "4"]


@pytest.fixture
def given(place: Path, tmp_path: Path) -> Callable[..., list[str]]:
    data = ["--task", "text-classification", "--train_file", place / "films.jsonl"]
    data += ["--columns", '{"text": "said", "label": "gold"}', "--model", place / "deberta"]
    return lambda *more: list(map(str, [*data, "--output_dir", tmp_path / "run", *QUICK, *more]))


def without(name: str, flags: list[str]) -> list[str]:
    """The flags without one and its value."""
    at = flags.index(name)
    return flags[:at] + flags[at + 2 :]


def files(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_json_is_one_object_and_everything_else_goes_to_stderr(given, tmp_path: Path, capsys):
    assert main(["select", *given("--format", "json", "--logging_steps", "1")]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    selection = Selection.load(tmp_path / "run")
    assert found["target_modules"] == selection.target_modules and len(found["target_modules"]) == 3
    assert all(name.startswith(("deberta.encoder.layer.", "pooler.")) for name in found["target_modules"])
    assert files(tmp_path / "run") == ["history.jsonl", "log.jsonl", "selection.json"]
    assert selection.step == 2 and selection.rule == "credit"
    shown = " ".join(err.split())
    assert "steps 2, of a training of 6" in shown and "3 of 13 modules chosen by credit" in shown
    assert "step 2/2, chose 3 adapters" in shown and "'loss'" in shown


def test_brackets_in_a_path_are_printed(given, tmp_path: Path, capsys):
    output = f"{tmp_path}/run[/bold]"
    assert main(["select", *given("--output_dir", output)]) == 0
    assert capsys.readouterr().err.endswith(f"in {output}\n")


@pytest.mark.parametrize(
    "name", ["peft", "trl", "axolotl", "llamafactory", "swift", "unsloth", "torchtune", "mlx", "regex"]
)
def test_every_format_is_printed_alone(given, tmp_path: Path, capsys, monkeypatch, name):
    choice = selection_of_deberta()
    monkeypatch.setattr("weightlora.train.choosing.choose", lambda *_, **__: choice)
    monkeypatch.setattr("weightlora.train.prepare", lambda recipe: prepared(recipe))
    monkeypatch.setattr("weightlora.train.preview.first_row", lambda job: ("a film", "fine"))
    assert main(["select", *given("--format", name)]) == 0
    output, error = capsys.readouterr()
    assert output == choice.to(name) and ("Ranks: " in error) == (name == "regex")


def selection_of_deberta() -> Selection:
    """One of its ranks differs, which an expression does not say."""
    from selections import selected

    found = Selection.of(selected())
    wide = next(module.name for module in found.kept)
    return replace(found, modules=tuple(replace(one, rank=16) if one.name == wide else one for one in found.modules))


def prepared(recipe):
    from types import SimpleNamespace

    plan = SimpleNamespace(
        **{
            "model": "Bert",
            "parameters": 1,
            "rows": {"train": 1},
            "read": (),
            "split_off": False,
            "learning_rate": 0.1,
        },
        **{"max_tokens": 128, "full_rows": 0, "max_target": 0, "full_targets": 0},
        **{"adapters": 12, "keep": 3, "trainable": (1, 1), "optimizer_bytes": (1, 1), "steps": 6, "select_steps": 2},
    )
    work = SimpleNamespace(config={})
    return SimpleNamespace(plan=plan, work=work, recipe=recipe, selection=WeightLoraConfig(keep=3, select_steps=2))


def test_ranks_in_proportion_and_their_training(given, tmp_path: Path, capsys):
    flags = without("--select_steps", without("--keep", given("--ranks", "proportional", "--format", "json")))
    assert main(["select", *flags]) == 0
    out, err = capsys.readouterr()
    found, selection = json.loads(out), Selection.load(tmp_path / "run")
    ranks = selection.ranks
    assert found["target_modules"] == list(ranks) and found["rank_pattern"] and len(set(ranks.values())) > 1
    assert f"{len(ranks)} of 13 modules chosen by gradient" in " ".join(err.split())
    flags[flags.index(str(tmp_path / "run"))] = str(tmp_path / "anew")
    flags = without("--format", without("--ranks", flags))
    assert main(["train", *flags, "--modules_from", str(tmp_path / "run"), "--report_to", "none"]) == 0
    model = AutoModelForSequenceClassification.from_pretrained(flags[flags.index("--model") + 1], num_labels=2)
    adapted = PeftModel.from_pretrained(model, tmp_path / "anew" / "adapter")
    assert {adapter.name: adapter.rank for adapter in find_adapters(adapted, check=False)} == ranks


def test_flags_of_the_selection(given, tmp_path: Path, capsys):
    flags = ["--selection", "random", "--seeds", "2", "--group", "qkv", "--keep", "7", "--format", "json"]
    assert main(["select", *without("--select_steps", given(*flags))]) == 0
    out, err = capsys.readouterr()
    found, shown = json.loads(out), " ".join(err.split())
    assert found["rule"] == "random" and found["grouping"]["group"] == "qkv" and len(found["seeds"]) == 13
    assert set(found["seeds"].values()) <= {0, 1, 2}
    assert "Groups (qkv): " in shown and "Without groups: 7 modules with" in shown and " of 2 seeds" in shown
    parts = [f"seed-{seed}/{name}" for seed in (42, 43) for name in ("history.jsonl", "log.jsonl", "selection.json")]
    assert files(tmp_path / "run") == [*parts, "selection.json"]


def test_layers_are_chosen_by_a_rule_that_compares_them(given, tmp_path: Path, capsys):
    assert main(["select", *given("--group", "layer", "--keep", "7", "--format", "json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rule"] == "credit" and found["grouping"]["group"] == "layer"
    layers = [re.findall(r"layer\.(\d)\.", name) for name in found["target_modules"]]
    assert layers in ([["0"]] * 6 + [[]], [["1"]] * 6 + [[]]), "a whole layer, and the pooler"


def test_layers_are_not_chosen_by_the_probe(given, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("weightlora.train.choosing.load_prepared", lambda *_: pytest.fail("the model was loaded"))
    assert main(["select", *without("--select_steps", given("--group", "layer", "--keep", "7"))]) == 2
    assert "group='layer' compares layers, and selection='gradient'" in capsys.readouterr().err


@pytest.mark.parametrize(("bound", "most"), [("700", 700), ("0.2", 716)])
def test_a_budget_of_parameters(given, place: Path, tmp_path: Path, capsys, bound, most):
    flags = given("--selection", "random", "--keep_parameters", bound, "--format", "json")
    assert main(["select", *without("--keep", without("--select_steps", flags))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["trainable_parameters"]["after"] <= most and found["trainable_parameters"]["before"] == 3584
    assert Selection.load(tmp_path / "run").config["keep"] is None


def test_without_a_place_nothing_is_written(given, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = given("--selection", "random", "--format", "json")
    assert main(["select", *without("--output_dir", without("--select_steps", flags))]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["target_modules"]) == 3
    assert "train_runtime" not in err  # a dict of Transformers, of a training that is not the user's
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_replaced_only_if_asked(given, tmp_path: Path, capsys):
    flags = without("--select_steps", given("--selection", "random"))
    assert main(["select", *flags]) == 0
    assert main(["select", *flags]) == 2
    assert "is not empty: give another directory, or add --overwrite." in capsys.readouterr().err
    assert main(["select", *flags, "--keep", "2", "--overwrite"]) == 0
    assert len(Selection.load(tmp_path / "run").kept) == 2


def test_a_dry_run_prints_the_plan(given, tmp_path: Path, capsys):
    assert main(["select", *given("--dry_run", "--format", "json")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "13 found, 3 are kept" in err and not (tmp_path / "run").exists()
    assert "learning rate" in err and "2, of a training of 6" in err
    assert main(["select", *without("--select_steps", given("--dry_run"))]) == 0
    assert "learning rate" not in (probed := capsys.readouterr().err) and "steps" not in probed, (
        "a probe trains nothing"
    )


def test_a_probe_has_no_steps_to_count_and_says_that_it_chooses(given, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("rich.console.Console.status", lambda _, text: said.append(text) or contextlib.nullcontext())
    assert main(["select", *without("--select_steps", given())]) == 0
    assert said == ["choosing modules"] and "step " not in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(given, tmp_path: Path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.Trainer.training_step", interrupt)
    assert main(["select", *given()]) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("weightlora select: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "axolotle"], "format='axolotle' is not known: the nearest is axolotl."),
        (["--group", "qk"], "group='qk' is not known"),
        (["--seeds", "0"], "seeds=0 must be"),
        (["--seeds", "many"], "argument --seeds: invalid int value: 'many'"),
        (["--selection", "gradients"], "selection='gradients' is not known: the nearest is gradient."),
        (["--selection", "best"], "selection='best' is not known: choose one of 'credit', 'gradient', "),
        (["--selection", "random"], "--selection random chooses before the first step: drop it, or set --selection"),
        (["--method", "random"], "--select_steps 2 is a setting of methods that choose while training, and --method"),
        (["--keep_parameters", "few"], "keep_parameters='few' is not a number"),
        (["--keep_parameters", "10"], "keep_parameters allows 10 parameters, less than"),
        (["--method", "lora"], "--method lora makes no choice"),
        (["--seeds", "2", "--keep_memory", "1GiB"], "set keep_parameters instead of keep_memory"),
        (["--modules_from", "run"], "gives the modules, and nothing is left to choose: leave it out, or"),
        (["--resume_from_checkpoint", "true"], "--resume_from_checkpoint continues a training"),
        (["--keeps", "3"], "--keeps is not an argument: the nearest is --keep"),
        (
            ["--seeds", "2", "--method", "weightlora-paper-plus", "--select_steps", "6"],
            "rounds=3 changes adapters before",
        ),
        (
            ["--ranks", "alike"],
            "ranks='alike' is not known: choose one of 'equal', 'proportional'.",
        ),
        (
            ["--group", "layer", "--keep_parameters", "150", "--keep", "1"],
            "keep_parameters allows 150 parameters, less than",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(given, tmp_path: Path, capsys, flags, message):
    assert main(["select", *given(*flags)]) == 2
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert out == "" and last.startswith("weightlora select: ") and message in last, err
    assert not (tmp_path / "run").exists()


def test_help_has_examples_and_the_exit_codes(capsys):
    assert main(["select", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  weightlora select --model") >= 3 and "--group" in shown and "130 interrupted" in shown
    assert "--output_dir DIR" in shown
    assert "--modules_from" not in shown.replace("weightlora train --modules_from", "") and "_prefix" not in shown
    assert "--learning_rate_" not in shown and len(shown.splitlines()) < 190


def test_any_family(place: Path, tmp_path: Path, capsys):
    save_model("llama", tmp_path / "llama")
    rows = write_rows(tmp_path / "texts.jsonl", [{"text": f"a fine film {i}"} for i in range(12)])
    flags = ["--task", "causal-lm", "--train_file", rows, "--model", tmp_path / "llama", "--pad_token", "</s>"]
    assert main(["select", *map(str, flags), *QUICK, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["target_modules"]) == 3


def test_a_budget_of_memory_from_the_dry_run_to_the_record(given, tmp_path: Path, capsys):
    def given_all(*more: str) -> list[str]:
        flags = given(*more)
        for name in ("--keep", *(["--select_steps"] if "gradient" in more else [])):
            place = flags.index(name)
            del flags[place : place + 2]
        return flags

    assert main(["select", *given_all("--keep_memory", "1GiB", "--dry_run")]) == 0
    err = capsys.readouterr().err
    found = re.search(r"a step with all 13 adapters: (\d+) KiB\. What a budget buys, if all score alike:", err)
    assert found is not None and len(re.findall(r"KiB +\d+ adapters$", err, re.MULTILINE)) > 2
    assert not (tmp_path / "run").exists()
    assert main(["select", *given_all("--keep_memory", "1GiB", "--keep", "3", "--dry_run")]) == 0
    assert set(re.findall(r"KiB +(\d+) adapters$", capsys.readouterr().err, re.MULTILINE)) == {"3"}
    assert main(["select", *given_all("--keep_memory", "1KiB", "--dry_run")]) == 2
    assert "keep_memory='1KiB' is too small: a step with one adapter takes" in capsys.readouterr().err
    assert main(["select", *given_all("--keep_memory", f"{found[1]}KB", "--selection", "gradient")]) == 0
    chosen = Selection.load(tmp_path / "run")
    assert chosen.costs is not None and 0 < len(chosen.kept) < 13
    assert chosen.costs["predicted"] <= chosen.costs["budget"] == int(found[1]) * 1000
    assert main(["select", *given_all("--keep_memory", "1GB", "--keep_step_time", "0.5", "--overwrite")]) == 2
    assert "cannot both be set" in capsys.readouterr().err
