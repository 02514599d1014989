"""The run directory is whole or not there, tells the truth, and its adapter needs nothing but PEFT."""

import copy
import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from exports import tree
from models import BERT_TARGETS, batch, lora_bert, tiny_bert, train
from peft import LoraConfig, PeftModel, get_peft_model
from processes import fork_server
from selections import selected, start

from weightlora import WeightLora, save_run
from weightlora.errors import StateError
from weightlora.files import read_lines
from weightlora.run import describe_selection


def test_a_run_directory_has_these_files(tmp_path):
    directory = save_run(selected(), tmp_path / "new" / "run")
    assert directory == tmp_path / "new" / "run"
    assert set(tree(tmp_path / "new")) == {
        "run",
        "run/selection.json",
        "run/history.jsonl",
        "run/adapter",
        "run/adapter/README.md",
        "run/adapter/adapter_config.json",
        "run/adapter/adapter_model.safetensors",
    }


def test_the_directory_can_be_read_by_others_and_may_be_empty_before(tmp_path):
    (tmp_path / "run").mkdir()
    directory = save_run(selected(), str(tmp_path / "run"))
    assert directory.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_selection_json_says_what_became_of_every_adapter(tmp_path):
    before = {
        name: module for name, module in lora_bert().get_base_model().named_modules() if hasattr(module, "lora_A")
    }
    sizes = {
        name: sum(p.numel() for part in (m.lora_A, m.lora_B) for p in part.parameters()) for name, m in before.items()
    }
    selector = selected(selection="stoiht", expand="qr", expand_rank=6, seed=7)
    written = json.loads((save_run(selector, tmp_path / "run") / "selection.json").read_text(encoding="utf-8"))

    left = {
        name: module
        for name, module in selector.model.get_base_model().named_modules()
        if hasattr(module, "lora_A") and name in sizes
    }
    assert len(left) == 3
    last = selector.history[1]
    gates, scores = (dict(zip(sizes, last[what], strict=True)) for what in ("omega", "score"))
    assert written.pop("adapters") == [
        {
            "name": name,
            "kind": "module",
            "kept": name in left,
            "score": scores[name],
            "omega": gates[name],
            "rank": 6 if name in left else None,
            "scaling": 2.0 * gates[name] if name in left else None,
            "parameters": size,
        }
        for name, size in sizes.items()
    ]
    assert written == {
        "format": 1,
        "adapter_name": "default",
        "model": None,
        "model_type": "bert",
        "lora": {
            "r": 6,
            "lora_alpha": selector.model.peft_config["default"].lora_alpha,
            "use_rslora": False,
            "task_type": "SEQ_CLS",
            "modules_to_save": ["classifier", "score"],
        },
        "unambiguous": True,
        "config": asdict(selector.config),
        "phase": "train",
        "step": 2,
        "trainable_parameters": {
            "before": sum(sizes.values()),
            "after": sum(sizes[name] for name in left) * 6 // 4,
        },
        "versions": {name: version(name) for name in ("weightlora", "peft", "torch", "transformers", "accelerate")},
    }


def test_history_has_a_line_for_each_step_and_each_decision(tmp_path):
    selector = selected(rounds=2, select_steps=4, steps=5)
    lines = (save_run(selector, tmp_path / "run") / "history.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert entries == selector.history
    assert [(entry["step"], "kept" in entry) for entry in entries] == [
        (1, False),
        (2, False),
        (2, True),
        (3, False),
        (4, False),
        (4, True),
    ]
    assert [len(entry["kept"]) for entry in entries if "kept" in entry] == [6, 3]


def test_only_the_adapter_that_was_selected_from_is_written(tmp_path):
    model = lora_bert()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["query"]))
    directory = save_run(selected(model), tmp_path / "run")
    assert "run/adapter/other" not in tree(tmp_path)
    assert "run/adapter/adapter_model.safetensors" in tree(tmp_path)
    assert len(json.loads((directory / "adapter" / "adapter_config.json").read_text())["target_modules"]) == 3


def test_an_adapter_of_another_name_is_written_to_the_same_place(tmp_path):
    config = LoraConfig(r=4, target_modules=BERT_TARGETS, task_type="SEQ_CLS")
    model = get_peft_model(tiny_bert(), config, adapter_name="mine")
    directory = save_run(selected(model), tmp_path / "run")
    loaded = PeftModel.from_pretrained(tiny_bert(), str(directory / "adapter")).eval()
    torch.testing.assert_close(loaded(**batch()).logits, model.eval()(**batch()).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "settings", "said"),
    [
        ({}, {}, 0),
        ({}, {"selection": "stoiht"}, 1),
        ({}, {"expand": "qr"}, 0),
        ({"rank_pattern": {"query": 2}}, {"selection": "random", "keep": 9}, 1),
        ({"use_rslora": True}, {}, 1),
    ],
)
def test_the_export_is_named_where_servers_would_misread_the_adapter(lora, settings, said, tmp_path, caplog):
    selector = selected(lora_bert(**lora), **settings)
    save_run(selector, tmp_path / "run")
    found = [record.message for record in caplog.records if "weightlora export ADAPTER_DIR OUT_DIR" in record.message]
    assert len(found) == said and ("weightlora export" in selector.summary().text) == bool(said)


def test_a_choice_that_is_not_final_is_not_written(tmp_path):
    selector = selected(steps=1)
    with pytest.raises(ValueError, match=r"^the selection is at step 1 of 2: train on, or call finish\(\) to decide"):
        save_run(selector, tmp_path / "run")
    assert tree(tmp_path) == {}
    selector.finish()
    assert (save_run(selector, tmp_path / "run") / "selection.json").is_file()


def test_before_the_probe_there_is_nothing_to_write(tmp_path):
    with pytest.raises(StateError, match=r"^no choice is made yet: call probe\(batches\) first\.$"):
        save_run(start(keep=3)[2], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_directory_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".hidden").write_text("mine")
    with pytest.raises(ValueError, match=r"run is not empty: give another directory, or pass overwrite=True"):
        save_run(selected(), tmp_path / "run")
    assert tree(tmp_path) == {"run": None, "run/.hidden": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_its_place_is_refused(tmp_path, overwrite):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match=r"run is a file: give a directory\.$"):
        save_run(selected(), tmp_path / "run", overwrite)
    assert tree(tmp_path) == {"run": b"mine"}


def test_overwriting_keeps_nothing_old(tmp_path):
    directory = save_run(selected(selection="random"), tmp_path / "run")
    (directory / "adapter" / "old").write_text("old")
    (directory / "notes").mkdir()
    first = (directory / "selection.json").read_bytes()
    save_run(selected(keep=2), directory, overwrite=True)
    assert set(tree(tmp_path)) == {
        "run",
        *(f"run/{name}" for name in ("selection.json", "history.jsonl", "adapter")),
        *(f"run/adapter/{name}" for name in ("README.md", "adapter_config.json", "adapter_model.safetensors")),
    }
    assert (directory / "selection.json").read_bytes() != first


@pytest.mark.parametrize("old", [False, True], ids=["nothing there", "an older run there"])
def test_a_failure_in_the_middle_leaves_all_as_it_was(tmp_path, monkeypatch, old):
    if old:
        save_run(selected(selection="random"), tmp_path / "run")
    before = tree(tmp_path)
    selector = selected()

    def fail(directory, **kwargs):
        Path(directory).mkdir()
        (Path(directory) / "half").write_text("of it")
        raise OSError("no space left")

    monkeypatch.setattr(selector.model, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        save_run(selector, tmp_path / "run", overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("which", [1, 2], ids=["putting the old one aside", "moving the new one in"])
def test_a_failure_of_the_exchange_leaves_the_old_run(tmp_path, monkeypatch, which):
    directory = save_run(selected(selection="random"), tmp_path / "run")
    before, selector, calls, replace = tree(tmp_path), selected(), [], os.replace

    def fail(source, target):
        if "run" in (Path(source).name, Path(target).name):
            calls.append(source)
            if len(calls) == which:
                raise OSError("device or resource busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="busy"):
        save_run(selector, directory, overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_old_run_that_cannot_be_put_back_is_not_deleted(tmp_path, monkeypatch, error):
    """It may stay in the folder that it was put aside in, but it stays."""
    directory = save_run(selected(selection="random"), tmp_path / "run")
    old, selector, replace = (directory / "selection.json").read_bytes(), selected(), os.replace

    def fail(source, target):
        if Path(target) == directory:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        save_run(selector, directory, overwrite=True)
    assert old in tree(tmp_path).values()


@pytest.mark.parametrize("content", [False, True], ids=["empty", "overwritten"])
def test_a_link_to_a_directory_is_written_through(tmp_path, content):
    (tmp_path / "real").mkdir()
    if content:
        (tmp_path / "real" / "old").touch()
        (tmp_path / "real" / "selection.json").touch()  # only an earlier run is overwritten
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    save_run(selected(), tmp_path / "link", overwrite=content)
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "real").iterdir()} == {"selection.json", "history.jsonl", "adapter"}
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


# How the model is made, and how the selection is set: what PEFT must rebuild from the files alone.
LOADED = {
    "3 of 12": ({}, {}),
    "24 of 36, where PEFT shortens the list of names": ({"layers": 6}, {"keep": 24}),
    "20 of 36, the first length that PEFT shortens": ({"layers": 6}, {"keep": 20, "selection": "random", "seed": 1}),
    "35 of 36": ({"layers": 6}, {"keep": 35}),
    "a block 1 beside a block 10": ({"layers": 11}, {"keep": 12, "selection": "random", "seed": 2}),
    "folded gates": ({}, {"selection": "stoiht", "keep": 5}),
    "folded gates under rsLoRA": ({"use_rslora": True}, {"selection": "stoiht", "keep": 5}),
    "24 folded gates": ({"layers": 6}, {"selection": "stoiht", "keep": 24}),
    "grown to a budget": ({}, {"expand": "qr"}),
    "24 grown, with ranks and alphas of their own": (
        {"layers": 6, "rank_pattern": {"query": 2, "intermediate.dense": 3}, "alpha_pattern": {"value": 5}},
        {"keep": 24, "expand": "random"},
    ),
    "rsLoRA grown": ({"use_rslora": True}, {"expand": "qr"}),
    "with a bias": ({"lora_bias": True}, {"selection": "stoiht"}),
    "two rounds to a budget of parameters": ({}, {"keep": None, "keep_parameters": 600, "rounds": 2}),
}

LOAD = """
import json, sys
sys.modules["weightlora"] = None
import torch
from models import batch, tiny_bert
from peft import PeftModel

torch.set_num_threads(1)
try:
    import weightlora
except ImportError:
    pass
else:
    raise SystemExit("weightlora is not blocked")
found = []
for directory, layers in json.loads(sys.stdin.read()):
    model = PeftModel.from_pretrained(tiny_bert(layers), directory).eval()
    adapters = {
        name: [module.r["default"], module.scaling["default"]]
        + [p.tolist() for part in (module.lora_A, module.lora_B) for p in part["default"].parameters()]
        for name, module in model.get_base_model().named_modules()
        if "default" in getattr(module, "lora_A", ())
    }
    with torch.no_grad():
        found.append({"adapters": adapters, "logits": model(**batch()).logits.tolist()})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, tuple[WeightLora, dict]]:
    """Each run, and what a process that has no weightlora finds in its files."""
    selectors, jobs = {}, []
    for i, (name, (lora, settings)) in enumerate(LOADED.items()):
        selectors[name] = selected(lora_bert(**lora), steps=12, **settings)
        directory = save_run(selectors[name], tmp_path_factory.mktemp("runs") / str(i))
        jobs.append((str(directory / "adapter"), lora.get("layers", 2)))
    process = fork_server().run("-c", LOAD, input=json.dumps(jobs))
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    return {name: (selectors[name], result) for name, result in zip(selectors, found, strict=True)}


@pytest.mark.parametrize("case", LOADED)
def test_peft_alone_rebuilds_the_model(loaded, case):
    """Exactly the kept modules with their factors, and the same logits, which the adapters matter to."""
    selector, found = loaded[case]
    keep = LOADED[case][1].get("keep", 3)
    assert list(found["adapters"]) == selector.kept
    assert keep is None or len(found["adapters"]) == keep
    for adapter in selector.adapters:
        rank, scaling, *tensors = found["adapters"][adapter.name]
        assert rank == adapter.rank
        assert scaling == pytest.approx(adapter.scaling, rel=1e-12)
        assert tensors == [parameter.tolist() for parameter in adapter.parameters]

    model = selector.model.eval()
    with torch.no_grad():
        expected = model(**batch()).logits
        for adapter in selector.adapters:
            adapter.layer.scaling["default"] = 0.0
        without = model(**batch()).logits
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, rtol=0, atol=1e-5)
    assert (without - expected).abs().max() > 1e-3


def test_a_directory_that_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds no earlier run \(no selection.json\), so it is not overwritten"):
        save_run(selected(selection="random"), tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", ["began_with.json", "_training", "checkpoint-3", "result.json", "adapter_model.safetensors"]
)
def test_a_training_is_never_overwritten(tmp_path, name):
    chosen = selected(selection="random")
    save_run(chosen, tmp_path / "run")
    save_run(chosen, tmp_path / "run", overwrite=True)
    (tmp_path / "run" / name).write_text("hours of work")
    with pytest.raises(ValueError, match=rf"holds a training \({name}\), so it is not overwritten: give another"):
        save_run(chosen, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / name).is_file()


def test_a_run_directory_is_written_while_the_run_goes_on(tmp_path):
    model, optimizer, selector = start(keep=3, select_steps=3, run_dir=tmp_path)
    assert json.loads((tmp_path / "selection.json").read_text())["phase"] == "select"
    for step in range(3):
        train(model, optimizer, selector, start=step)
        lines = read_lines(tmp_path / "history.jsonl")
        assert [line["step"] for line in lines if "score" in line] == list(range(1, step + 2))
    assert lines == selector.history and lines[-1]["kept"] == selector.kept
    written = json.loads((tmp_path / "selection.json").read_text())
    assert written == describe_selection(selector) and written["phase"] == "train"


@pytest.mark.parametrize("killed_at", [1, 2, 4])
def test_the_history_of_a_resumed_run_has_no_gap_and_no_repetition(tmp_path, killed_at):
    """The process dies after `killed_at` steps, in the middle of a line, and resumes from its checkpoint at step 1."""
    whole, settings = tmp_path / "whole", {"keep": 3, "select_steps": 4, "rounds": 2}
    train(*start(**settings, run_dir=whole), steps=5)

    model, optimizer, selector = start(**settings, run_dir=tmp_path / "cut")
    train(model, optimizer, selector, steps=1)
    state, weights = selector.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
    moments = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, selector, steps=killed_at - 1, start=1)
    with (tmp_path / "cut" / "history.jsonl").open("a") as file:
        file.write('{"step": 5, "sco')

    model, optimizer, selector = start(**settings, state=state, run_dir=tmp_path / "cut")
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    train(model, optimizer, selector, steps=4, start=1)
    assert (tmp_path / "cut" / "history.jsonl").read_text() == (whole / "history.jsonl").read_text()
    assert (tmp_path / "cut" / "selection.json").read_text() == (whole / "selection.json").read_text()


def test_the_decision_of_a_training_that_was_stopped_is_not_that_of_the_resumed_one(tmp_path):
    settings = {"keep": 3, "select_steps": 4, "rounds": 2, "run_dir": tmp_path}
    model, optimizer, selector = start(**settings)
    train(model, optimizer, selector, steps=3)
    state = selector.state_dict()
    selector.finish()  # as trainers do at the end
    assert [entry["step"] for entry in read_lines(tmp_path / "history.jsonl") if "kept" in entry] == [2, 3]
    model, optimizer, selector = start(**settings, state=state)
    assert [entry["step"] for entry in read_lines(tmp_path / "history.jsonl")] == [1, 2, 2, 3]
    train(model, optimizer, selector, steps=1, start=3)
    assert [entry["step"] for entry in read_lines(tmp_path / "history.jsonl")] == [1, 2, 2, 3, 4, 4]


def test_a_run_that_resumes_after_a_probe_keeps_its_history(tmp_path):
    """Its choice is of step 0, as nothing is of a run that begins."""
    settings = {"keep": 3, "selection": "gradient", "probe_batches": 2}
    selector = start(**settings, run_dir=tmp_path)[2]
    assert read_lines(tmp_path / "history.jsonl") == []
    selector.probe([batch(0), batch(1)])
    start(**settings, state=selector.state_dict(), run_dir=tmp_path)
    assert read_lines(tmp_path / "history.jsonl") == selector.history != []
    start(**settings, run_dir=tmp_path)
    assert read_lines(tmp_path / "history.jsonl") == [], "a new run begins a new one"


def test_save_run_takes_the_whole_history_of_a_resumed_run(tmp_path):
    settings = {"keep": 3, "select_steps": 3, "run_dir": tmp_path / "live"}
    first = start(**settings)
    train(*first, steps=2)
    model, optimizer, selector = start(**settings, state=first[2].state_dict())
    train(model, optimizer, selector, steps=1, start=2)
    assert [entry["step"] for entry in selector.history] == [3, 3]
    saved = save_run(selector, tmp_path / "saved")
    assert [entry["step"] for entry in read_lines(saved / "history.jsonl")] == [1, 2, 3, 3]


def test_save_run_of_something_else_says_what_it_takes(tmp_path):
    with pytest.raises(
        StateError, match=r"save_run takes a WeightLora, and got None: a callback has it as \.selector"
    ):
        save_run(None, tmp_path / "run")


def test_save_run_takes_the_log_that_a_trainer_kept(tmp_path):
    model, optimizer, selector = start(keep=3, select_steps=2, run_dir=tmp_path / "live")
    selector.run.begin_log(0)
    selector.run.log({"step": 1, "loss": 0.5})
    train(model, optimizer, selector, steps=2)
    assert read_lines(save_run(selector, tmp_path / "saved") / "log.jsonl") == [{"step": 1, "loss": 0.5}]
    selector.run.begin_log(1)
    assert read_lines(tmp_path / "live" / "log.jsonl") == [{"step": 1, "loss": 0.5}]
    selector.run.begin_log(0)
    assert read_lines(tmp_path / "live" / "log.jsonl") == []


def test_a_state_that_is_loaded_later_keeps_the_history_of_its_run(tmp_path):
    """`load_state_dict` comes after the selector, which cannot know yet that a run goes on."""
    settings = {"keep": 3, "select_steps": 4, "run_dir": tmp_path}
    model, optimizer, selector = start(**settings)
    train(model, optimizer, selector, steps=2)
    state, before = selector.state_dict(), read_lines(tmp_path / "history.jsonl")

    model, optimizer, again = start(**settings)
    assert read_lines(tmp_path / "history.jsonl") == []
    again.load_state_dict(state)
    assert read_lines(tmp_path / "history.jsonl") == before
    train(model, optimizer, again, steps=1, start=2)
    assert read_lines(tmp_path / "history.jsonl")[:2] == before and before[-1]["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "selection.json"]

    train(*start(**settings), steps=1)
    assert [entry["step"] for entry in read_lines(tmp_path / "history.jsonl")] == [1], "a new run begins anew"
