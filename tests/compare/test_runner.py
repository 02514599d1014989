"""The pool runs real processes: their progress, errors and end."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from weightlora.compare.runner import Process, execute, usable_cores


def python(code: str, name: str = "run") -> Process:
    return Process(name, [sys.executable, "-c", code])


def test_progress_and_times_are_reported():
    steps, ends = [], []
    code = "from weightlora.compare.runner import tell_progress as t\nprint('other')\nt(1, 2)\nt(2, 2)"
    failed = execute([python(code)], 1, lambda *what: ends.append(what), lambda *what: steps.append(what[1:]))
    assert failed == [] and steps == [(0, 0), (1, 2), (2, 2)]
    (process, seconds, error) = ends[0]
    assert process.name == "run" and seconds > 0 and error is None


def test_a_failure_is_told_with_the_last_line_and_the_others_run():
    ends = []
    wrong = python("import sys; print('first', file=sys.stderr); sys.exit('the reason\\n')", "wrong")
    failed = execute(
        [wrong, python("", "right")], 1, lambda process, seconds, error: ends.append((process.name, error))
    )
    assert failed == [(wrong, "the reason")]
    assert ends == [("wrong", "the reason"), ("right", None)]
    assert execute([python("import os; os._exit(3)")], 1, lambda *_: None)[0][1] == "exit code 3"


def test_each_process_has_its_share_of_the_cores_and_its_variables():
    code = "import os; assert os.environ['OMP_NUM_THREADS'] == '{}' and os.environ['MINE'] == '1'"
    process = Process("run", [sys.executable, "-c", code.format(usable_cores())], environment={"MINE": "1"})
    assert execute([process], 1, lambda *_: None) == []


def test_a_process_is_given_more_than_a_command_line_holds():
    process = python("import sys; text = sys.stdin.read(); sys.exit(len(text) != 2**21 or text[-1] != '\u00e9')")
    assert execute([replace(process, given="x" * (2**21 - 1) + "\u00e9")], 1, lambda *_: None) == []


def test_a_process_that_cannot_start_is_a_failure_like_others():
    ends = []
    missing = Process("missing", ["/nowhere/python"])
    failed = execute([missing, python("", "right")], 1, lambda process, *what: ends.append((process.name, *what)))
    assert failed[0][0] == missing and failed[0][1].startswith("the process cannot be started: ")
    assert [name for name, *_ in ends] == ["missing", "right"] and ends[1][2] is None


def test_an_interrupt_ends_the_processes_that_run():
    began = threading.Event()

    def stop(process, step, steps):
        if step:
            began.set()

    def interrupt(process, seconds, error):
        began.wait(60)
        raise KeyboardInterrupt

    long = python("import time; print('step 1/2', flush=True); time.sleep(300)", "long")
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute([long, python("import time; time.sleep(1)")], 2, interrupt, stop)
    assert time.monotonic() - since < 60


def test_a_termination_ends_the_processes_that_run(tmp_path):
    pid = tmp_path / "pid"
    inner = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
    outer = (
        "import sys; from weightlora.compare.runner import Process, execute; "
        f"execute([Process('run', [sys.executable, '-c', {inner!r}])], 1, lambda *_: None)"
    )
    with subprocess.Popen([sys.executable, "-c", outer]) as process:
        while not (pid.is_file() and pid.read_text().endswith(".")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait() == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text().rstrip(".")), 0)
