"""The code of tools that do not import here, taken from their files: `make consumers` installs them."""

import ast
import importlib.util
import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MAKE = "make consumers"
SHARE = Path(os.environ.get("WEIGHTLORA_CONSUMERS", Path(__file__).parents[3] / ".venv-consumers" / "share"))


def installed(name: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed: {MAKE} installs it")
    return Path(spec.submodule_search_locations[0])


def installed_apart(name: str) -> Path:
    """A folder of packages that `make consumers` keeps apart, because they disagree with others."""
    if not (SHARE / name).is_dir():
        pytest.skip(f"{name} is not in {SHARE}: {MAKE} puts it there")
    return SHARE / name


def load_file(path: Path) -> ModuleType:
    """One file of a package as a module; it must import nothing of its package."""
    name = f"{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def define(path: Path, names: Collection[str], namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the definitions of a file that have these names, methods included, in a namespace, and return it.

    Decorators are left out: they bind methods and validators to classes.
    """
    found = {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names
    }
    assert set(found) == set(names), f"{path} has no {set(names) - set(found)}"
    for node in found.values():
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        future = ast.parse("from __future__ import annotations").body
        exec(compile(ast.Module([*future, node], []), str(path), "exec"), namespace)
    return namespace
