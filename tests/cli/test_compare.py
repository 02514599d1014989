"""`weightlora compare` as a user calls it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from weightlora.cli import main

FAST = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--max_length", "16", "--rank", "2", "--use_cpu"]


@pytest.fixture
def films(place):
    columns = ["--columns", '{"text": "said", "label": "gold"}']
    return ["--model", str(place / "deberta"), "--train_file", str(place / "films.jsonl"), *columns, *FAST]


@pytest.mark.slow
def test_a_comparison_in_processes_of_its_own(place, films, tmp_path, capsys):
    out = tmp_path / "out"
    shared = ["--methods", "lora", "random", "--seeds", "1", "--learning_rates", "1e-3", "--output_dir", str(out)]
    assert main(["compare", *films, *shared, "--json"]) == 0
    printed, said = capsys.readouterr()
    summary = json.loads(printed)
    assert printed.count("\n") == 1 and set(summary["methods"]) == {"lora", "random"}
    assert "2 runs, 0 of them done" in said and "[2/2]" in said and "comparison.png" in said

    assert main(["compare", *films, *shared]) == 0
    printed, said = capsys.readouterr()
    assert "2 runs, 2 of them done" in said and "[1/2]" not in said, "nothing ran"
    assert "held-out loss" in printed and "vs random" in printed and "peak memory" in printed

    assert main(["compare", "--output_dir", str(out), "--summarize", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary

    (out / "comparison.md").unlink()
    (out / "comparison.md").mkdir()
    assert main(["compare", "--output_dir", str(out), "--summarize", "--json"]) == 2
    printed, said = capsys.readouterr()
    assert json.loads(printed) == summary, "it is printed, also where it cannot be written"
    assert said.startswith("weightlora compare: ") and said.count("\n") == 1 and "cannot be used" in said


def test_a_dry_run_refuses_what_the_run_would_refuse(films, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert main(["compare", *films, "--output_dir", str(tmp_path / "out"), "--dry_run"]) == 2
    assert "is not empty and has no settings.json: give another --output_dir." in capsys.readouterr().err


@pytest.mark.parametrize("asked", [["--dry_run"], ["--dry-run"], ["--dry_run=true"], ["--config", "plan.yaml"]])
def test_a_dry_run_prints_the_plan_and_writes_nothing(films, tmp_path, monkeypatch, capsys, asked):
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text("dry_run: true\n")
    monkeypatch.setattr("weightlora.compare.session.carry_out", lambda *_: pytest.fail("the runs began"))
    out = tmp_path / "out"
    assert main(["compare", *films, "--output_dir", str(out), *asked]) == 0
    printed, said = capsys.readouterr()
    assert printed == "" and not out.exists()
    assert "rows: train 45, validation 6, test 13; 2 steps a run" in said
    assert "tokens: at most 16 in a row (max_length); 12 of 45 training rows reach that" in said
    assert re.search(r"^first row: \S.*\nlearned: 1$", said, re.MULTILINE)
    assert (
        "weightlora: as many of 13 adapters as fit, at most 258 trainable parameters, " in said
        and "rate 0.0005, 0.001, 0.002" in said
    )
    assert main(["compare", *films, "--output_dir", str(out), *asked, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert list(plans) == ["lora", "random", "weightlora"] and plans["lora"]["adapters"] == 13


def test_a_test_on_the_training_rows_is_a_warning(place, films, tmp_path):
    rows = ["--validation_file", str(place / "films.jsonl"), "--output_dir", str(tmp_path / "out"), "--dry_run"]
    with pytest.warns(UserWarning, match=r"films\.jsonl has the rows of the training file"):
        assert main(["compare", *films, *rows]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "lorra"], "method='lorra' is not known: the nearest is lora"),
        (["--jobs", "0"], "--jobs 0 is too small"),
        (["--learning_rates", "fast"], "'fast' has a part that is not a number"),
        (["--model", "./nowhere"], "the model ./nowhere is missing"),
        (["--sedes", "3"], "--sedes is not"),
        (["--summarize"], "--summarize reads everything from --output_dir"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(films, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    try:
        code = main(["compare", *films, "--output_dir", str(out), *arguments])
    except SystemExit as stop:
        code = stop.code
    printed, said = capsys.readouterr()
    assert code == 2 and printed == "" and message in said
    assert said.count("\n") == 1 and said.startswith("weightlora compare: ")
    assert not out.exists()


def test_an_empty_file_and_a_single_class_are_refused(films, tmp_path, capsys):
    for rows, message in (
        ("", "is empty"),
        ([{"said": f"t{i}", "gold": "a"} for i in range(50)], "at least 2 classes"),
    ):
        path = tmp_path / "data.jsonl"
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        arguments = [*films, "--train_file", str(path), "--output_dir", str(tmp_path / "out")]
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_interrupt_says_that_the_same_command_goes_on(films, tmp_path, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weightlora.compare.session.carry_out", interrupt)
    line = ["compare", *films, "--max_steps", "4", "--learning_rates", "1e-3", "--output_dir", str(tmp_path / "out")]
    assert main(line) == 130
    said = capsys.readouterr().err
    assert said.endswith(
        "finished runs are kept: the same command goes on from there\nweightlora compare: interrupted\n"
    )


def test_a_directory_is_needed(films, capsys):
    assert main(["compare", *films]) == 2
    assert "--output_dir is missing" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys\nfrom weightlora.cli import main\ntry: main(['compare', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('datasets' in sys.modules)"], capture_output=True, text=True
    )
    assert "--learning_rates" in done.stdout and done.stdout.endswith("False\n")


def test_an_empty_output_directory_is_a_missing_one(capsys):
    """As from an unset variable of the shell: it would be the current directory."""
    assert main(["compare", "--output_dir="]) == 2
    assert "--output_dir is missing: give a directory, such as runs/compare/NAME." in capsys.readouterr().err
