"""A package that is missing is one sentence, which says what installs it."""

import sys
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from exports import saved
from processes import fork_server
from run_directories import write_run

from weightlora.errors import MissingPackageError, WeightLoraError
from weightlora.extras import INSTALLED_BY, explain_missing, require


def run_without(package: str, place: Path, code: str) -> CompletedProcess[str]:
    """Run code in a directory and a process in which all imports of a package fail, as if it was not installed."""
    names = f"[name for name in [*sys.modules, {package!r}] if name.split('.')[0] == {package!r}]"
    hide = f"import os, sys\nos.chdir({str(place)!r})\nsys.modules.update(dict.fromkeys({names}))\n"
    return fork_server().run("-c", hide + code)


def run_command_without(package: str, place: Path, *arguments: str) -> CompletedProcess[str]:
    return run_without(package, place, f"from weightlora.cli import main; sys.exit(main({[*arguments]}))")


@pytest.mark.parametrize("module", INSTALLED_BY)
def test_the_sentence_says_what_to_install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError) as caught:
        require("json", module)
    assert str(caught.value) == f"{module} is not installed: run pip install '{INSTALLED_BY[module]}'."
    assert caught.value.name == module
    assert isinstance(caught.value, ModuleNotFoundError) and isinstance(caught.value, WeightLoraError)


def test_a_part_of_a_package_and_an_own_requirement(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.nowhere", None)
    with pytest.raises(MissingPackageError) as caught:
        require("matplotlib.nowhere", requirement="weightlora[demo]")
    assert str(caught.value) == "matplotlib is not installed: run pip install 'weightlora[demo]'."


def test_other_modules_fail_as_they_do():
    with pytest.raises(ModuleNotFoundError) as caught, explain_missing():
        import_module("weightlora.nowhere")
    assert type(caught.value) is ModuleNotFoundError


def test_the_first_explanation_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackageError, match="mine"), explain_missing("another"), explain_missing("mine"):
        import_module("gguf")


@pytest.mark.parametrize(
    ("package", "requirement", "code"),
    [
        ("lightning", "weightlora[lightning]", "from weightlora import WeightLoraLightningCallback"),
        ("trl", "trl", "from weightlora import WeightLoraSFTTrainer"),
        ("datasets", "weightlora[train]", "from weightlora.train import prepare"),
        (
            "sklearn",
            "weightlora[train]",
            "from weightlora.train.families import find_family; find_family('regression')",
        ),
        (
            "rouge_score",
            "weightlora[recipes]",
            "from weightlora.train.families import find_family; find_family('seq2seq')",
        ),
        ("jinja2", "weightlora[report]", "from weightlora.report import *; render_page([read_run('run')])"),
        ("matplotlib", "weightlora[report]", "from weightlora.report import *; render_page([read_run('run')])"),
        ("matplotlib", "weightlora[report]", "from weightlora import Selection; Selection.load('run').plot()"),
        ("matplotlib", "weightlora[report]", "from weightlora.report import draw_selection; draw_selection('run')"),
        (
            "gguf",
            "weightlora[export]",
            "from weightlora import export_adapter; export_adapter('adapter', 'out', 'gguf')",
        ),
    ],
)
def test_in_python(tmp_path: Path, package, requirement, code):
    write_run(tmp_path / "run", layers=1, steps=4, keep=2)
    done = run_without(package, tmp_path, code)
    sentence = f"{package} is not installed: run pip install '{requirement}'."
    assert done.stderr.splitlines()[-1] == f"weightlora.errors.MissingPackageError: {sentence}"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("select", "rich", "train"),
        ("train --dry_run", "rich", "train"),
        ("compare --output_dir out", "matplotlib", "compare"),
        ("compare --output_dir out --summarize", "sklearn", "compare"),
        ("quickstart", "matplotlib", "demo"),
        ("show run --output page.html", "jinja2", "report"),
        ("export run out --profile gguf", "gguf", "export"),
        ("completion bash", "shtab", "demo"),
    ],
)
def test_a_command(tmp_path: Path, command, package, extra):
    write_run(tmp_path / "run", layers=1, steps=4, keep=2)
    done = run_command_without(package, tmp_path, *command.split())
    sentence = f"{package} is not installed: run pip install 'weightlora[{extra}]'."
    assert done.stderr == f"weightlora {command.split()[0]}: {sentence}\n"
    assert done.returncode == 2 and [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("package", ["rich", "datasets"])
def test_an_export_needs_neither_tables_nor_data(tmp_path: Path, package):
    done = run_command_without(package, tmp_path, "export", str(saved("gates")), "out", "--check", "tensors")
    assert done.returncode == 0, done.stderr
    assert "profile" in done.stdout and done.stdout.endswith(f"in {tmp_path / 'out'}\n")
