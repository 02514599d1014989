"""`weightlora train` as a newcomer meets it."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import BAD, GOOD, save_model

from weightlora.cli import main
from weightlora.train import parse, prepare
from weightlora.train.methods import FULL_RATE, LORA_RATE
from weightlora.train.result import read_result

QUICK = ["--max_steps", "4", "--select_steps", "2", "--max_length", "64", "--keep", "3", "--use_cpu"]
QUICK += ["--per_device_train_batch_size", "4", "--save_strategy", "no"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a file of 40 texts of which every second one is there twice."""
    root = tmp_path_factory.mktemp("world")
    save_model("deberta", root / "deberta")
    rows = [{"text": f"{(GOOD, BAD)[i % 2]} {i - i % 4}", "label": i % 2} for i in range(40)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def without(names: str, flags: list[str]) -> list[str]:
    """The flags without these, each with its value."""
    return [flag for i, flag in enumerate(flags) if flag not in names.split() and flags[i - 1] not in names.split()]


@pytest.fixture
def given(world: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def make(*more: object) -> list[str]:
        task = ["--task", "text-classification", "--model", world / "deberta", "--train_file", world / "rows.jsonl"]
        return list(map(str, [*task, "--output_dir", tmp_path / "out", *QUICK, *more]))

    return make


def test_without_an_evaluation_file_rows_are_split_off(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["train", *given()]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "validation 4 (the data has no validation split: it is a tenth of the training texts" in shown
    result = read_result(tmp_path / "out")
    assert result.plan["rows"] == {"train": 36, "validation": 4} and result.plan["split_off"] is True
    work = prepare(parse(given())).work
    texts = [{tuple(ids) for ids in rows["input_ids"]} for rows in (work.train, work.evaluation["validation"])]
    assert not texts[0] & texts[1], "a text is in both splits"


def test_a_run_that_hardly_learned_says_so(given, world: Path, capsys: pytest.CaptureFixture):
    assert main(["train", *given("--validation_file", world / "rows.jsonl", "--learning_rate", "1e-9")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The run hardly learned: the best guess that reads no text has a loss of 0.6931 on validation. Try" in shown


def test_an_evaluation_on_the_training_rows_is_a_warning(given, world: Path, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    for text, warned in ((rows := (world / "rows.jsonl").read_text(), 1), (rows.replace("film", "book"), 0)):
        other.write_text(text)
        with warnings.catch_warnings(record=True) as caught:
            assert main(["train", *given("--validation_file", other), "--dry_run"]) == 0
        assert sum("has the rows of the training file" in str(one.message) for one in caught) == warned


def test_brackets_in_a_path_are_printed(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The console would take them for its markup, and fail at the end of the training."""
    output = f"{tmp_path}/run[/bold]"
    assert main(["train", *given("--output_dir", output)]) == 0
    assert capsys.readouterr().out.endswith(f"in {output}\n")


def test_a_directory_without_an_evaluation_split(given, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text((world / "rows.jsonl").read_text())
    arguments = [a for a in given("--dataset", folder) if a not in {"--train_file", str(world / "rows.jsonl")}]
    job = prepare(parse(arguments))
    assert job.plan.split_off and job.plan.rows == {"train": 36, "validation": 4}
    assert main(["train", *arguments, "--dry_run"]) == 0
    assert "validation 4 (the data has no validation split" in " ".join(capsys.readouterr().out.split())
    for name in ("validation", "dev", "valid", "val"):
        (folder / f"{name}.jsonl").write_text((world / "rows.jsonl").read_text())
        assert not prepare(parse(arguments)).plan.split_off
        (folder / f"{name}.jsonl").unlink()


@pytest.mark.parametrize(
    ("budget", "shown"),
    [
        ([], "before, at most 930 after optimizer at most 7.5 kB steps 4, after the choice"),
        (["--keep_memory", "1GiB"], "before, what fits is measured optimizer what fits is measured steps 4, after"),
        (
            ["--keep_step_time", "0.9", "--keep", "3"],
            "before, at most 994 after optimizer at most 8.0 kB steps 4, after",
        ),
        (
            ["--select_steps", "2"],
            "before, at most 861 after optimizer 29.1 kB before, at most 6.9 kB after steps 4: 2",
        ),
    ],
)
def test_the_plan_says_what_is_known_before_the_choice(given, capsys: pytest.CaptureFixture, budget, shown):
    flags = [*without("--select_steps --keep", given()), *budget, "--dry_run"]
    assert main(["train", *flags]) == 0
    assert f"trainable 3,618 parameters {shown}" in " ".join(capsys.readouterr().out.split())


def test_without_an_output_directory_it_says_so_before_it_reads_anything(given, capsys: pytest.CaptureFixture):
    flags = given("--model", "./nowhere")
    at = flags.index("--output_dir")
    del flags[at : at + 2]
    assert main(["train", *flags]) == 2
    message = "--output_dir is missing: give a directory, such as runs/NAME."
    assert capsys.readouterr().err == f"weightlora train: {message}\n"
    flags[flags.index("./nowhere")] = flags[flags.index("--model") + 1]
    assert main(["train", *flags, "--dry_run"]) == 0


def test_the_default_of_keep_is_given_once(capsys: pytest.CaptureFixture):
    for command, last in (
        ("train", "for lora-equal, peft-default, listed, top and last-layers 0.25)"),
        ("select", "of the parameters)"),
    ):
        assert main([command, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
        assert last in shown and "(default: 0.25)" not in shown


def test_the_help_does_not_give_the_default_rate_of_transformers(capsys: pytest.CaptureFixture):
    assert main(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: 5e-4; 5e-5 for full)" in shown and "5e-05" not in shown
    assert (LORA_RATE, FULL_RATE) == (5e-4, 5e-5)


def test_the_plan_says_what_the_model_gets(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = [{"text": text, "label": text[2:6], **{f"more {n}": 0 for n in range(9)}} for text in (GOOD, BAD)] * 8
    path = tmp_path / "wide.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = given("--dry_run", "--validation_file", path)
    flags[flags.index("--train_file") + 1] = str(path)
    assert main(["train", *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    unread = ", ".join(f"more {n}" for n in range(8))
    assert f"columns text, label; not read: {unread} and 1 more first row [CLS] {GOOD}[SEP] learned fine" in shown


def test_the_plan_names_the_classes(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    names = [f"[red]{number:02}" for number in range(11)]
    (tmp_path / "many.jsonl").write_text("".join(f"{json.dumps({'text': name, 'label': name})}\n" for name in names))
    flags = given("--dry_run")
    flags[flags.index("--train_file") + 1] = str(tmp_path / "many.jsonl")
    assert main(["train", *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"classes {', '.join(names[:8])} and 3 more method" in shown


def test_the_plan_says_how_many_rows_are_cut(given, capsys: pytest.CaptureFixture):
    said = []
    for length in ("64", "4"):
        assert main(["train", *given("--dry_run", "--max_length", length)]) == 0
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "tokens at most 64 in a row (max_length) classes" in said[0]
    assert re.search(r"at most 4 in a row \(max_length\); (\d+) of \1 training rows reach that, and longer", said[1])


def test_a_fraction_of_the_training_as_the_selection_phase(given, capsys: pytest.CaptureFixture):
    assert main(["train", *without("--select_steps", given()), "--select_steps", "0.5", "--dry_run"]) == 0
    assert "4: 2 before the choice, 2 after it" in capsys.readouterr().out


def test_the_choice_is_printed_once(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    """At the choice, between the steps, and not again by a run that resumes after it."""
    saving = ["--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "3"]
    assert main(["train", *given(*saving)]) == 0
    shown = capsys.readouterr().out
    before, after = shown.split("WeightLoRA kept 3 of 13 adapters, with ")
    assert before.count("'loss'") + after.count("'loss'") == 4 and after.count("'loss'") in (2, 3)
    chosen = json.loads((tmp_path / "out" / "selection.json").read_text())["trainable_parameters"]
    said = " ".join(after.split())
    assert said.startswith(
        f"{chosen['after']:,} of {chosen['before']:,} parameters ({chosen['after'] / chosen['before']:.0%}): "
    )
    kinds = {name.split(".")[-1] for name in read_result(tmp_path / "out").kept}
    assert all(kind in said.split(". ")[0] for kind in kinds)
    (tmp_path / "out" / "result.json").unlink()
    assert main(["train", *given(*saving, "--resume_from_checkpoint", "true")]) == 0
    assert "WeightLoRA kept" not in capsys.readouterr().out


def test_a_choice_before_the_first_step_is_printed_and_no_choice_is_not(given, tmp_path: Path, capsys):
    assert main(["train", *without("--select_steps", given("--method", "random"))]) == 0
    assert capsys.readouterr().out.count("WeightLoRA kept 3 of 13 adapters") == 1
    plain = given("--method", "lora", "--output_dir", tmp_path / "lora")
    assert main(["train", *without("--select_steps --keep", plain)]) == 0
    assert "WeightLoRA kept" not in capsys.readouterr().out


def test_the_learning_rate_fits_the_method(given, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert prepare(parse(given("--method", "full"))).plan.learning_rate == FULL_RATE == 5e-5
    assert prepare(parse(given("--learning_rate", "3e-3"))).recipe.training.learning_rate == 3e-3
    job = prepare(parse(given("--method", "lora")))
    assert job.plan.learning_rate == job.recipe.training.learning_rate == LORA_RATE == 5e-4
    assert main(["train", *without("--select_steps --keep", given("--method", "lora"))]) == 0
    shown = capsys.readouterr().out
    assert shown.count("learning rate") == 2 and shown.count("0.0005") == 2, "in the plan, and with the result"
    result = read_result(tmp_path / "out")
    assert result.settings["learning_rate"] == result.plan["learning_rate"] == LORA_RATE


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dora", '{"typo": 1}', "method_options has 'typo', which dora does not read: it reads no options."),
        ("weightlora", '{"round": 3}', "'round', which weightlora does not read: the nearest is rounds."),
        ("random", '{"selection": "credit"}', "'selection', which random does not read"),
        ("lora", '{"r": 4}', "method_options has 'r', which is an argument: give --rank instead."),
        ("lora", '{"use_rsloar": true}', "the nearest is use_rslora."),
    ],
)
def test_an_option_that_the_method_does_not_read_is_refused(given, capsys, method: str, options: str, message: str):
    flags = without("--select_steps --keep", given("--method", method, "--method_options", options))
    assert main(["train", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_options_that_are_read_still_work(given):
    options = '{"keep": null, "keep_parameters": 1000, "seed": 3}'
    assert prepare(parse(given("--method_options", options))).plan.keep is None
    assert prepare(parse(given("--method", "lora", "--method_options", '{"use_rslora": true}'))).plan.adapters == 13


def test_arguments_of_the_trainer_that_do_not_fit_are_one_sentence(given, capsys: pytest.CaptureFixture):
    assert (
        main(
            [
                "train",
                *given("--eval_strategy", "steps", "--save_strategy", "epoch", "--load_best_model_at_end", "true"),
            ]
        )
        == 2
    )
    assert capsys.readouterr().err.startswith("weightlora train: the arguments do not fit together: ")


def test_a_finished_run_is_refused_before_the_data_is_read(given, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("weightlora.train.plan.read_splits", lambda *_: pytest.fail("the data was read"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    assert main(["train", *given()]) == 2
    out, err = capsys.readouterr()
    assert (
        out == "" and "has the result of a finished run: give another --output_dir, or delete that directory." in err
    )


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("lora", ["--keep", "3"], "--keep 3 is a setting of the choice, and --method lora makes no choice: drop it"),
        ("full", ["--select_steps", "2"], "--select_steps 2 is a setting of the choice, and --method full makes no"),
        (
            "random",
            ["--select_steps", "2"],
            "--select_steps 2 is a setting of methods that choose while training, and",
        ),
        ("top", ["--keep", "3", "--select_steps", "2"], "--select_steps 2 is a setting of methods that choose while"),
    ],
)
def test_a_setting_of_another_method_is_refused(given, tmp_path: Path, capsys, method: str, flags, message: str):
    typed = [*without("--select_steps --keep", given("--method", method)), *flags]
    assert main(["train", *typed]) == 2
    error = capsys.readouterr().err
    assert message in error and error.endswith("drop it, or set --method weightlora.\n")
    (tmp_path / "recipe.yaml").write_text("keep: 3\nselect_steps: 2\n")  # it is for several methods
    shared = [*without("--select_steps --keep", given("--method", method)), "--config", str(tmp_path / "recipe.yaml")]
    assert main(["train", *shared, "--dry_run"]) == 0
