"""The command line as a whole: errors, exit codes, and what it takes to start."""

import contextlib
import errno
import subprocess
import sys
import warnings

import pytest
from processes import fork_server
from rich.console import Console
from rich.progress import Progress

from weightlora.cli import main, quickstart, spellings, train
from weightlora.errors import ConfigError

NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "/runs/a")
NO_PLACE = OSError(errno.ENOSPC, "No space left on device")
BARRED = PermissionError(errno.EACCES, "Permission denied", "/runs/a")


def fail_with(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    def fail(args):
        raise raised

    monkeypatch.setattr(quickstart, "check_arguments", fail)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (ModuleNotFoundError("", name="rich"), 2, "rich is not installed: run pip install 'weightlora[train]'."),
        (ModuleNotFoundError("", name="shtab"), 2, "shtab is not installed: run pip install 'weightlora[demo]'."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (NO_SPACE, 2, "/runs/a cannot be written (No space left on device): make room, and try again."),
        (NO_PLACE, 2, "the output cannot be written (No space left on device): make room, and try again."),
        (BARRED, 2, "/runs/a cannot be used (Permission denied): change its permissions, or give another place."),
        (ConfigError("first\n  second"), 2, "first second"),
    ],
)
def test_an_error_of_the_user_is_one_sentence(capsys, monkeypatch, raised, code: int, message: str):
    fail_with(monkeypatch, raised)
    assert main(["quickstart"]) == code
    assert capsys.readouterr().err == f"weightlora quickstart: {message}\n"


def test_a_warning_is_one_sentence_and_is_printed_once(monkeypatch):
    """PEFT warns of GPT-2's layers whenever it adapts them, which a command does several times."""
    found = []

    def warn(args):
        found.extend(warnings.formatwarning(text, UserWarning, "file.py", 1) for text in ("odd", "new", "odd"))
        return 0

    monkeypatch.setattr(quickstart, "run", warn)
    usual = warnings.formatwarning
    assert main(["quickstart"]) == 0 and warnings.formatwarning is usual
    assert found == ["weightlora quickstart: odd\n", "weightlora quickstart: new\n", ""]


def test_an_interruption_before_the_command_runs_is_one_sentence(capsys, monkeypatch):
    def stopped(name, package=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("weightlora.cli.import_module", stopped)
    assert main(["show", "run"]) == 130
    assert capsys.readouterr().err == "weightlora: interrupted\n"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), ConfigError("keep is wrong."), ValueError("torch's own")])
def test_the_cursor_that_a_bar_hid_comes_back(capsys, monkeypatch, raised: BaseException):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal

    def fail(args):
        Progress(console=Console(stderr=True)).start()
        raise raised

    monkeypatch.setattr(quickstart, "check_arguments", fail)
    with contextlib.suppress(ValueError):
        main(["quickstart"])
    error = capsys.readouterr().err
    assert error.rindex("\x1b[?25h") > error.rindex("\x1b[?25l")


@pytest.mark.parametrize("arguments", [["--debug", "quickstart"], ["quickstart", "--debug"]])
def test_debug_shows_the_traceback_of_our_errors(capsys, monkeypatch, arguments: list[str]):
    fail_with(monkeypatch, ConfigError("keep is wrong."))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback") and error.endswith("weightlora quickstart: keep is wrong.\n")


@pytest.mark.parametrize("raised", [ValueError("torch's own"), OSError("a bug"), ModuleNotFoundError(name="x")])
def test_any_other_error_is_a_traceback(monkeypatch, raised: Exception):
    fail_with(monkeypatch, raised)
    with pytest.raises(type(raised)):
        main(["quickstart"])


@pytest.mark.parametrize("arguments", [["slowstart"], ["quickstart", "--steps", "many"], ["quickstart", "--what"]])
def test_arguments_that_do_not_parse_are_one_line(capsys: pytest.CaptureFixture, arguments: list[str]):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output, error = capsys.readouterr()
    assert stop.value.code == 2 and output == ""
    assert error.count("\n") == 1 and error.startswith("weightlora")


def test_an_unknown_command_is_answered_with_those_that_help_lists(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["trian"])
    error = capsys.readouterr().err
    assert error.startswith("weightlora: 'trian' is not a command: the nearest is train; there are quickstart, ")


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture):
    assert main([]) == 2
    output, error = capsys.readouterr()
    assert output == "" and error.startswith("usage: weightlora") and "quickstart" in error


def test_debug_with_a_value_is_that_of_transformers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    seen = []

    def run_(args):
        seen.append(args.rest)
        raise ConfigError("keep is wrong.")

    monkeypatch.setattr(train, "run", run_)
    for arguments in (["--debug", "underflow_overflow"], ["--debug", "--keep", "3"], ["--keep", "3", "--debug"]):
        assert main(["train", *arguments]) == 2
    assert seen == [["--debug", "underflow_overflow"], ["--keep", "3"], ["--keep", "3"]]
    assert capsys.readouterr().err.count("Traceback") == 2


@pytest.mark.parametrize("command", ["quickstart", "select", "train", "show", "export", "compare"])
def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture, command: str):
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert f"examples:\n  weightlora {command}" in shown and "\nexit codes: 0 " in shown and "None)" not in shown
    if command == "quickstart":
        assert "order of the data (default: 0)" in " ".join(shown.split())


def test_flags_have_both_spellings():
    assert spellings("learning_rate") == ["--learning_rate", "--learning-rate"] and spellings("keep") == ["--keep"]


def test_no_command_prints_what_bitsandbytes_could_not_load(tmp_path):
    """bitsandbytes logs "Failed to load CPU gemm_4bit_forward" when PEFT imports it."""
    arguments = ["train", "--task", "cola", "--output_dir", str(tmp_path / "x")]
    code = f"from weightlora.cli import main; code = main({arguments!r}); import peft; exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("weightlora train: ") and done.stderr.count("\n") == 1, done.stderr


LEFT = """
import os, sys
reading, writing = os.pipe()
os.close(reading)  # as `| head` does
os.dup2(writing, 1)
from weightlora.cli import main
code = main(["completion", "bash"])
sys.stdout.flush()  # as at the end of a process
sys.exit(code)
"""


RICH = LEFT.replace(
    "from weightlora",
    """from rich.console import Console
from weightlora.cli import completion
completion.run = lambda args: Console().print("x")
from weightlora""",
)


@pytest.mark.parametrize("script", [LEFT, RICH], ids=["print", "rich"])
def test_a_reader_that_leaves_is_no_error(script):
    done = fork_server().run("-c", script)
    assert (done.stderr, done.returncode) == ("", 141)


def test_a_character_that_the_terminal_lacks_is_escaped():
    script = "import sys; sys.stdout.reconfigure(encoding='ascii', errors='strict'); from weightlora.cli import main\n"
    script += "from weightlora.cli import completion; completion.run = lambda args: print('0.1 \u00b1 0.2') or 0\n"
    done = fork_server().run("-c", script + "sys.exit(main(['completion', 'bash']))")
    assert (done.stdout, done.stderr, done.returncode) == ("0.1 \\xb1 0.2\n", "", 0)


def test_a_deleted_working_directory_is_one_sentence(tmp_path, monkeypatch, capsys):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit, match="2"):
        main(["show", "runs/a"])
    assert capsys.readouterr().err == "weightlora: the working directory was deleted: change to one that exists.\n"


def test_a_closed_stdout_is_no_error():
    script = "import sys; sys.stdout = None; from weightlora.cli import main; sys.exit(main(['completion', 'bash']))"
    done = fork_server().run("-c", script)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--foo"], "weightlora: --foo is not an argument, and there is no command: weightlora --help shows them."),
        (["--vers"], "weightlora: --vers is not an argument"),
        (["quickstart", "--step", "3"], "unrecognized arguments: --step 3"),
    ],
)
def test_no_flag_is_shortened_and_an_unknown_one_is_named(line, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(line)
    assert end.value.code == 2 and said in capsys.readouterr().err
