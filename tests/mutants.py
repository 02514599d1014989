"""Mutation testing of the core: change one operator, condition, number or statement, and some test must fail.

    python tests/mutants.py [--jobs N] [FILE ...]

`make mutants` runs it on all files of `TARGETS`. A mutant is run against the tests that mirror its source, but only
those that reach its line. It is "killed" if one fails, or takes five times as long. A mutant that survives is
listed in `mutants.json` with the reason why no test fails. The run fails for any other survivor, and for an entry that
no survivor needs. Each mutant runs in a fork of a process that has imported PyTorch and Transformers.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

import coverage
import hypothesis
import pytest
from mutations import SOURCES, Mutant, mutants_of

HERE = Path(__file__).parent
REASONS = HERE / "mutants.json"
OURS = ("weightlora", "benchmarks", "tests", "conftest")
RULES = ("chance", "credit", "gates", "gradient")
TARGETS = ["budget.py", "state.py", "schema.py"]
TARGETS += [
    str(path.relative_to(SOURCES)) for part in ("rules", "adapters") for path in sorted((SOURCES / part).glob("*.py"))
]

# Beside the tests that mirror a file.
ALSO = {
    "schema.py": ["test_state.py"],
    "adapters/models.py": ["adapters/test_finding.py"],
    "rules/base.py": ["rules/test_credit.py", "rules/test_gradient.py"],
}
ALSO |= {f"rules/{rule}.py": ["rules/test_base.py"] for rule in RULES}


class Replace(SourceFileLoader):
    """Imports a module from another text than that of its file."""

    def __init__(self, file: str, text: str) -> None:
        self.name_ = ".".join(["weightlora", *Path(file).with_suffix("").parts]).removesuffix(".__init__")
        super().__init__(self.name_, str(SOURCES / file))
        self.text = text

    def find_spec(self, name, path, target=None):
        return spec_from_file_location(name, self.path, loader=self) if name == self.name_ else None

    def get_code(self, fullname):
        return compile(self.text, self.path, "exec")


class Trace:
    """A pytest plugin: which tests reach which line of a file, and how long each takes, written to a file of JSON."""

    def __init__(self, file: str, output: Path) -> None:
        self.output, self.file = output, str(SOURCES / file)
        self.seconds: dict[str, float] = {}
        self.coverage = coverage.Coverage(data_file=None, include=[self.file], config_file=False)
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.coverage.switch_context(item.nodeid)
        began = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - began
        self.coverage.switch_context("")
        return result

    def pytest_sessionfinish(self):
        self.coverage.stop()
        lines = self.coverage.get_data().contexts_by_lineno(self.file)
        modules = [name for name, module in sys.modules.items() if not is_ours(name, module)]
        self.output.write_text(json.dumps({"lines": lines, "seconds": self.seconds, "modules": modules}))


def is_ours(name: str, module: object) -> bool:
    """Whether a module is a file of this repository, or a package of such files."""
    file = str(getattr(module, "__file__", None) or "")
    return name.split(".")[0] in OURS or (file.startswith(str(HERE.parent)) and "site-packages" not in file)


def fork(job: Callable[[], int], seconds: float) -> int:
    """Run a job in a fork, silently, for so many seconds of CPU at most; returns the process's id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        signal.alarm(int(20 * seconds))  # for one that waits
        silence = os.open(os.environ.get("WEIGHTLORA_MUTANTS_LOG", os.devnull), os.O_RDWR | os.O_APPEND | os.O_CREAT)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = job()
    finally:
        os._exit(code)


def run_tests(tests: list[str], *plugins: object) -> int:
    some = [phase for phase in hypothesis.Phase if phase not in (hypothesis.Phase.shrink, hypothesis.Phase.explain)]
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None, phases=some)
    options = [
        "-x",
        "--hypothesis-profile=mutants",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        "--tb=no",
    ]
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


def tests_of(file: str) -> list[str]:
    """The test files that mirror a source file (one, or several that begin like it), and those of `ALSO`."""
    path = Path(file)
    stem = path.parent.name if path.stem == "__init__" else path.stem
    found = sorted((HERE / path.parent).glob(f"test_{stem}*.py")) or sorted((HERE / path.parent).glob("test_*.py"))
    return [str(test) for test in (*found, *(HERE / test for test in ALSO.get(file, ())))]


def trace(file: str) -> dict:
    """Run the tests of a file without a change; returns what `Trace` found."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "trace.json"
        pid = fork(lambda: run_tests(tests_of(file), Trace(file, output)), 600)
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit(f"{file}: its tests fail without a mutant: {' '.join(tests_of(file))}")
        return json.loads(output.read_text())


def test(file: str, mutants: list[Mutant], jobs: int) -> dict[str, list[Mutant]]:
    """What became of the mutants of one file: killed, survived or timeout."""
    traced = trace(file)
    for name in traced["modules"]:
        try:
            importlib.import_module(name)
        except Exception:
            continue
    gc.freeze()
    seconds: dict[str, float] = traced["seconds"]
    found: defaultdict[str, list[Mutant]] = defaultdict(list)
    running: dict[int, Mutant] = {}

    def collect() -> None:
        pid, status = os.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it started
        mutant = running.pop(pid)
        stopped = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM)
        outcome = "timeout" if stopped else "killed" if status else "survived"
        found[outcome].append(mutant)
        if outcome != "killed":
            print(f"  {outcome}: {mutant.function}: {mutant.before}  ->  {mutant.after}", flush=True)

    for mutant in mutants:
        if mutant.lines:
            reach = {test for line in mutant.lines for test in traced["lines"].get(str(line), ()) if test}
        else:
            reach = set(seconds)
        tests = sorted(reach, key=seconds.__getitem__)
        if not tests:
            found["survived"].append(mutant)
            print(f"  not reached: {mutant.function}: {mutant.before}  ->  {mutant.after}", flush=True)
            continue

        def job(mutant: Mutant = mutant, tests: list[str] = tests) -> int:
            sys.meta_path.insert(0, Replace(mutant.file, mutant.text))
            return run_tests(tests)

        running[fork(job, 10 + 5 * sum(seconds[test] for test in tests))] = mutant
        if len(running) == jobs:
            collect()
    while running:
        collect()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the core; see the docstring of the file.")
    parser.add_argument(
        "files", nargs="*", default=TARGETS, metavar="FILE", help="such as rules/gates.py (default: all)"
    )
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)"
    )
    arguments = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", COVERAGE_CORE="ctrace")  # the core that has contexts
    sys.path[:0] = [str(SOURCES.parent), str(HERE), str(HERE.parent)]
    os.chdir(HERE.parent)

    entries = json.loads(REASONS.read_text(encoding="utf-8"))
    reasons = {(one["file"], one["function"], one["before"], one["after"]): one["reason"] for one in entries}
    new: list[Mutant] = []
    used: set[tuple[str, ...]] = set()
    for file in arguments.files:
        began = time.monotonic()
        mutants = list(mutants_of(file))
        print(f"{file}: {len(mutants)} mutants", flush=True)
        found = test(file, mutants, arguments.jobs) if mutants else {}
        survived = found.get("survived", [])
        new += [mutant for mutant in survived if mutant.key not in reasons]
        used |= {mutant.key for mutant in survived}
        counts = Counter({outcome: len(of) for outcome, of in found.items()})
        listed = sum(mutant.key in reasons for mutant in survived)
        print(
            f"{file}: {counts['killed']} killed, {counts['timeout']} timed out, {counts['survived']} survived "
            f"({listed} with a reason), {time.monotonic() - began:.0f} s",
            flush=True,
        )
    stale = [key for key in reasons if key[0] in arguments.files and key not in used]
    for key in stale:
        print("no longer needed in mutants.json:", *key, sep="\n  ")
    if new:
        print(f"{len(new)} mutants survive without a reason: write a test, delete the code, or give the reason:")
        fields = ("file", "function", "before", "after")
        print(json.dumps([{**dict(zip(fields, mutant.key, strict=True)), "reason": ""} for mutant in new], indent=2))
    return 1 if new or stale else 0


if __name__ == "__main__":
    sys.exit(main())
