"""A process that has imported what others need, and forks them: the imports take seconds, a fork takes none.

Run by `processes.ForkServer`. A line of JSON on standard input has the arguments of one `python`, and a line on
standard output the exit code of the fork that did as it would. A launcher (torchrun, `accelerate launch`) forks its
processes, too.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler


class Forked:
    """The part of `subprocess.Popen` that torchrun uses, for processes that run Python."""

    def __init__(self, args, env, start_new_session, stdout=None, stderr=None):
        python, *command = [argument for argument in args if argument != "-u"]
        assert python == sys.executable and stdout is stderr is None, args
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            if start_new_session:
                os.setsid()
            live(command, env)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=float("inf")):
        """Returns None when the time is over."""
        end = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.returncode


def live(command, environment):
    """Do what `python` does with these arguments, and end this process."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        code = run(command)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(command):
    """Run `-c code`, `-m module`, or a script; returns the exit code."""
    try:
        if command[0] in ("-c", "-m"):
            sys.path.insert(0, "")  # as python does
        if command[0] == "-c":
            exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
        elif command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(command, environment, directory, streams, limit):
    """Run one command in a session of its own; returns its exit code, or None if it had not ended in time.

    `streams` are the files of its standard input, output and error.
    """
    os.chdir(directory)
    keep = [os.dup(number) for number in range(3)]
    for number, path in enumerate(streams):
        file = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    process = Forked([sys.executable, *command], environment, start_new_session=True)
    for number, kept in enumerate(keep):
        os.dup2(kept, number)
        os.close(kept)
    code = process.wait(limit)
    if code is None:
        os.killpg(process.pid, signal.SIGTERM)  # a launcher passes it on
        if process.wait(30) is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    subprocess_handler.Popen = Forked
    gc.disable()
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # what is imported stays: a fork need not look at it, and so copy it
    gc.enable()
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(answer(**json.loads(line))), flush=True)
