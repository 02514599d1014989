"""The training up to the decision: the choice of the whole run, and nothing else of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import BAD, GOOD, arguments
from transformers import Trainer

from weightlora import Selection
from weightlora.errors import ConfigError
from weightlora.selection.combining import Wishes
from weightlora.train import fit, parse, prepare
from weightlora.train.choosing import check_begins, check_chooses, choose

pytestmark = pytest.mark.filterwarnings("ignore:the adapters are chosen after only")


@pytest.fixture
def given(world: Path, rows: Path, tmp_path: Path) -> Callable[..., list[str]]:
    texts = [{"text": f"{(GOOD, BAD)[i % 2]} {i}", "label": i % 2} for i in range(16)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts))
    files = ["--train_file", rows, "--validation_file", rows]
    return lambda *more: arguments(world, "text-classification", "deberta", tmp_path / "out", *files, *more)


@pytest.mark.parametrize("options", [{}, {"selection": "gradient"}, {"selection": "stoiht"}])
def test_the_choice_is_the_one_of_the_whole_training(given, tmp_path: Path, options, monkeypatch):
    whole = given("--method_options", json.dumps(options))
    if options.get("selection") == "gradient":  # which takes no select_steps
        place = whole.index("--select_steps")
        del whole[place : place + 2]
    fit(prepare(parse(whole)))
    job = prepare(parse([*whole, "--save_strategy", "epoch", "--eval_strategy", "epoch"]))
    monkeypatch.setattr("transformers.Trainer.evaluate", lambda *_, **__: pytest.fail("an evaluation"))
    choice = choose(job, tmp_path / "chosen")
    trained = Selection.load(tmp_path / "out")
    assert choice.to_dict() == trained.to_dict() == Selection.load(tmp_path / "chosen").to_dict()
    assert choice.step == (0 if options.get("selection") == "gradient" else 2)
    history = (tmp_path / "chosen" / "history.jsonl").read_text()
    assert history == (tmp_path / "out" / "history.jsonl").read_text()
    assert sorted(path.name for path in (tmp_path / "chosen").iterdir()) == [
        "history.jsonl",
        "log.jsonl",
        "selection.json",
    ]


def test_no_step_is_made_after_the_choice(given, tmp_path: Path, monkeypatch):
    made = []
    step = Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **kwargs: made.append(1) or step(*args, **kwargs))
    choose(prepare(parse(given())), tmp_path / "credit")
    assert len(made) == 2
    choose(prepare(parse(given("--method", "random"))), tmp_path / "random")
    assert len(made) == 2


def test_several_seeds_have_a_directory_each(given, tmp_path: Path):
    job = prepare(parse(given("--method", "random", "--seed", "5", "--keep", "6")))
    seen = []
    choice = choose(job, tmp_path / "chosen", lambda prepared, seed: seen.append(seed) or (), Wishes("qkv", 2))
    assert seen == [5, 6]
    runs = [Selection.load(tmp_path / "chosen" / f"seed-{seed}") for seed in (5, 6)]
    assert runs[0].target_modules != runs[1].target_modules
    again = Selection.load(tmp_path / "chosen")
    assert again.to_dict() == choice.to_dict() and sum(again.seeds.values()) > 6
    assert again.grouping["group"] == "qkv" and not (tmp_path / "chosen" / "history.jsonl").exists()
    values = [name for name in again.target_modules if name.endswith(("query_proj", "key_proj", "value_proj"))]
    assert len(values) % 3 == 0


def test_a_method_without_a_choice_is_refused(given):
    with pytest.raises(ConfigError, match="--method lora makes no choice: leave it out"):
        check_chooses(prepare(parse(given("--method", "lora"))))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--modules_from", "run"],
            "--modules_from run gives the modules, and nothing is left to choose: leave it out, or",
        ),
        (["--resume_from_checkpoint", "true"], "--resume_from_checkpoint continues a training, .*: leave it out"),
    ],
)
def test_a_choice_that_was_made_and_a_training_that_goes_on_are_refused_at_once(given, more, message):
    with pytest.raises(ConfigError, match=message):
        check_begins(parse(given(*more)))
