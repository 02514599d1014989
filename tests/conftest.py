"""What holds for every test: no network, one thread, fixed seeds."""

import gc
import importlib.metadata
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import jinja2
import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# Every checkpoint asks for the same versions, and PEFT compiles the same template for each card: together they took a
# sixth of the time of a short training. Each function that is imported from there is the cached one.
importlib.metadata.version = cache(importlib.metadata.version)
jinja2.Template = cache(jinja2.Template)

if not (torch.cuda.is_available() or torch.xpu.is_available()):
    # They keep each seed for later, with the stack of the call, which takes longer than to seed the CPU.
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = lambda seed: None

# A slow example on a busy machine is no bug. In CI the examples are the same every time, as in Hypothesis's own CI
# profile: a change does not fail for what another one left. Everywhere else they are new ones.
settings.register_profile("weightlora", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("weightlora")


HERE = Path(__file__).parent
SLOW = {
    HERE.parent / "contrib",
    *(HERE / part for part in ("benchmarks", "cli", "compare", "consumers", "contrib", "engines", "fuzz", "report")),
    *(HERE / part for part in ("train", "trainers")),
    *(HERE / f"test_{name}.py" for name in ("api", "architectures", "checkpoint", "compile", "docs", "examples")),
    *(HERE / f"test_{name}.py" for name in ("extras", "faults", "fork_server", "run")),
    HERE / "adapters" / "test_variants.py",
    *(HERE / "costs" / f"test_{name}.py" for name in ("measuring", "memory", "seconds")),
    HERE / "export" / "test_exporting.py",
    HERE / "prefix" / "test_cache.py",
    HERE / "selection" / "test_choosing.py",
    *(HERE / "selection" / "formats" / f"test_{name}.py" for name in ("data", "python")),
}
"""Whose tests train with a Trainer, run commands, pages of the docs or processes: all of them are marked as slow."""


def is_slow(path: Path) -> bool:
    return not SLOW.isdisjoint((path, *path.parents))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The quick part does not import what it leaves out: that would take longer than its own tests."""
    return True if config.option.markexpr == "not slow" and is_slow(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)


def pytest_collectstart() -> None:
    """To collect the tests imports everything, and leaves no garbage that matters."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays, and need not be looked at again: Trainer collects all garbage at each end of a
    training, which took longer than a short training itself."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The same of what the tests of a file leave, such as modules that were imported in one of them."""
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every generator before each test, so that none depends on those that ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0
