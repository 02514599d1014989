"""The wheel, alone and with each extra, in environments with nothing else. `make wheel-test` runs these."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WHEELS = os.environ.get("WEIGHTLORA_WHEELS")  # the directory of the wheel
USES = Path(__file__).parent / "uses"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WHEELS is None, reason="WEIGHTLORA_WHEELS names no directory: make wheel-test does"),
]

# Extra -> packages that neither it nor anything that it needs installs: the environment has nothing else.
EXTRAS = {
    "train": {"gguf", "lightning", "matplotlib", "shtab"},
    "compare": {"gguf", "lightning", "shtab"},
    "report": {"datasets", "gguf", "lightning", "sklearn"},
    "export": {"datasets", "lightning", "matplotlib", "sklearn"},
    "lightning": {"datasets", "gguf", "matplotlib", "sklearn"},
    "demo": {"lightning", "rouge_score"},
    "recipes": {"lightning"},
}
CORE = {"datasets", "gguf", "lightning", "matplotlib", "rouge_score", "shtab", "sklearn"}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with what the core needs, but not with the package."""
    place = tmp_path_factory.mktemp("dependencies") / "environment"
    venv.create(place, with_pip=True, symlinks=True)
    pip(place, "install", "--no-compile", wheel())
    pip(place, "uninstall", "--yes", "weightlora")
    yield place
    shutil.rmtree(place)


@contextmanager
def installed(dependencies: Path, directory: Path, extra: str | None = None) -> Iterator[Path]:
    """The interpreter of an environment with the wheel, what it needs, and nothing else."""
    place = directory / "environment"
    # Links: torch alone may have gigabytes. pip and Python replace files, and never write into one that is there.
    shutil.copytree(dependencies, place, symlinks=True, copy_function=os.link)
    pip(place, "install", "--no-compile", f"{wheel()}[{extra}]" if extra else wheel())
    yield place / "bin" / "python"
    shutil.rmtree(place)


def wheel() -> Path:
    [path] = Path(str(WHEELS)).glob("*.whl")
    return path


def pip(environment: Path, *arguments: object) -> None:
    run(environment / "bin" / "python", "-m", "pip", "-q", *arguments, cwd=environment)


def importable(python: Path, names: set[str], cwd: Path) -> set[str]:
    code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    return set(run(python, "-I", "-c", code, *sorted(names), cwd=cwd).split())


@pytest.fixture(scope="module")
def core(dependencies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(dependencies, tmp_path_factory.mktemp("core")) as python:
        yield python


def test_types_hold_for_a_user(core: Path, tmp_path: Path) -> None:
    """A line with a mistake has a comment that mypy asks for, and would call needless if it saw no mistake."""
    check = ["-m", "mypy", "--strict", "--python-executable", core, "--cache-dir", tmp_path]
    assert run(sys.executable, *check, USES / "typed_use.py", cwd=tmp_path).startswith("Success")


def test_the_core_works_alone(core: Path, tmp_path: Path) -> None:
    assert importable(core, CORE, tmp_path) == set()
    run(core, USES / "use_core.py", cwd=tmp_path)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_enough_for_its_part(extra: str, dependencies: Path, tmp_path: Path) -> None:
    with installed(dependencies, tmp_path, extra) as python:
        assert importable(python, EXTRAS[extra], tmp_path) == set()
        run(python, USES / f"use_{extra}.py", cwd=tmp_path)
