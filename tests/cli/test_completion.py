"""The script of `weightlora completion`, run by bash."""

import contextlib
import io
import shutil
import subprocess

import pytest

from weightlora.cli import COMMANDS, main

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script() -> str:
    with contextlib.redirect_stdout(printed := io.StringIO()):
        assert main(["completion", "bash"]) == 0
    return printed.getvalue()


def complete(script: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(words)
    ask = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}\n"
        '_shtab_weightlora; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_flags(script):
    assert {*COMMANDS} <= complete(script, "weightlora", "''")
    assert complete(script, "weightlora", "sel") == {"select"}
    assert "--learning_rate" in complete(script, "weightlora", "train", "--learning_r")
    assert "--group" in complete(script, "weightlora", "select", "--gro")
    assert "--profile" in complete(script, "weightlora", "export", "--prof")


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", "fish"])
    assert stop.value.code == 2 and "invalid choice: 'fish'" in capsys.readouterr().err
