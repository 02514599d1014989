"""A fork is told from a new `python` by its speed alone: exit code, streams, environment, an end."""

import signal
import subprocess

import pytest
from processes import fork_server


@pytest.mark.parametrize(
    ("code", "returncode"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(4)", 4),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_the_exit_code_is_pythons(code, returncode):
    assert fork_server().run("-c", code).returncode == returncode


def test_a_script_has_its_streams_arguments_and_neighbours(tmp_path):
    (tmp_path / "neighbour.py").write_text("NAME = __name__")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom neighbour import NAME\n"
        "print(__name__, NAME, sys.argv[1:], sys.stdin.read())\nprint('error', file=sys.stderr)\n1 / 0\n"
    )
    done = fork_server().run(str(script), "a", "b", input="given")
    assert done.stdout == "__main__ neighbour ['a', 'b'] given\n"
    assert done.stderr.startswith("error\nTraceback") and "ZeroDivisionError" in done.stderr


def test_a_module_is_main_and_is_found_where_the_call_is_made(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(5)\n")
    monkeypatch.chdir(tmp_path)
    done = fork_server().run("-m", "module", "a")
    assert (done.stdout, done.returncode) == ("__main__ ['a']\n", 5)


def test_each_has_the_environment_of_its_call_and_leaves_nothing_to_the_next(monkeypatch):
    code = "import os, random; print(os.environ.get('MINE'), hasattr(random, 'spoiled')); random.spoiled = 1"
    monkeypatch.setenv("MINE", "yes")
    assert fork_server().run("-c", code).stdout == "yes False\n"
    monkeypatch.delenv("MINE")
    assert fork_server().run("-c", code).stdout == "None False\n"


def test_what_does_not_end_is_ended():
    with pytest.raises(subprocess.TimeoutExpired, match=r"timed out after 0\.5 seconds"):
        fork_server().run("-c", "import time\nwhile True: time.sleep(1)", limit=0.5)
    assert fork_server().run("-c", "print('the next')").stdout == "the next\n"
