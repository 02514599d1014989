"""What `import weightlora` may load, and that imports between the rooms of the package point one way."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "weightlora"

# From the top down. A room may import the rooms of lower layers, never one of its own layer. "__init__" is the public
# API: who says `from weightlora import WeightLora` imports that.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"bench"},
    {"recipe"},
    {"report", "methods", "tasks"},
    {"__init__"},
    {"trl"},
    {"trainer", "lightning", "export"},
    {"callback"},
    {"card", "phases"},
    {"selector"},
    {"rules", "checkpoint"},
    {"surgery", "expansion", "schedule", "projection", "gates", "credit"},
    {"distributed"},
    {"adapters", "optimizers"},
    {"config", "tensors", "variants"},
    {"measure"},
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
# Measuring is no part of the method.
ONLY_IMPORTED_BY = {"measure": {"cli", "bench", "recipe", "report"}}


def rooms_of(package: Path) -> dict[str, list[Path]]:
    """The source files of each room: a module, or a sub-package with all that is in it."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        rooms.setdefault(path.relative_to(package).parts[0].removesuffix(".py"), []).append(path)
    return rooms


def imported_names(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, function bodies and TYPE_CHECKING included."""
    here = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def wrong_imports(package: Path) -> list[str]:
    """Every import that breaks the order of LAYERS, and every room that has no place in it."""
    rooms = rooms_of(package)
    wrong = [f"{room} has no place in LAYERS" for room in rooms if room not in DEPTH]
    for room in rooms.keys() & DEPTH.keys():
        for path in rooms[room]:
            for line, name in imported_names(path, package):
                top, *rest = name.split(".")
                if top != package.name:
                    continue
                target = rest[0] if rest and rest[0] in rooms else "__init__"
                if target == room or target not in DEPTH:
                    continue
                if DEPTH[target] <= DEPTH[room] or room not in ONLY_IMPORTED_BY.get(target, {room}):
                    wrong.append(f"{path.relative_to(package)}:{line}: {room} must not import {target}")
    return sorted(wrong)


def test_imports_point_one_way() -> None:
    assert wrong_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("config.py", "from .adapters import find", "config must not import adapters"),
        ("config.py", "import weightlora.adapters", "config must not import adapters"),
        ("config.py", "from . import adapters", "config must not import adapters"),
        ("config.py", "from weightlora import adapters", "config must not import adapters"),
        ("config.py", "from weightlora import WeightLora", "config must not import __init__"),
        ("adapters.py", "def f():\n    from .selector import WeightLora", "adapters must not import selector"),
        ("gates.py", "from .projection import top_k", "gates must not import projection"),
        ("tasks/glue.py", "from ..cli import main", "tasks must not import cli"),
        ("trainer.py", "from .measure import peak", "trainer must not import measure"),
        ("__init__.py", "from .cli import main", "__init__ must not import cli"),
        ("measure.py", "from .config import WeightLoraConfig", "measure must not import config"),
        ("novelty.py", "", "novelty has no place in LAYERS"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, message: str) -> None:
    package = tmp_path / "weightlora"
    sub_packages = {"cli", "recipe", "report", "tasks"}
    for path in [f"{room}/__init__.py" if room in sub_packages else f"{room}.py" for room in DEPTH]:
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).touch()
    (package / "selector.py").write_text("import torch\nfrom .gates import Gates\nfrom weightlora.config import A\n")
    (package / "cli" / "__init__.py").write_text("from .train import run\nfrom .. import WeightLora, measure\n")
    assert wrong_imports(package) == []

    (package / file).write_text(source)
    assert len(found := wrong_imports(package)) == 1
    assert found[0].endswith(message)


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import weightlora")
    assert not loaded & {"datasets", "lightning", "matplotlib", "rich", "sklearn", "transformers.trainer", "trl"}
    above = [room for room in DEPTH if DEPTH[room] < DEPTH["__init__"]]
    assert not loaded & {f"weightlora.{room}" for room in [*above, "measure", "trainer", "lightning"]}


def test_the_callback_is_loaded_when_asked_for() -> None:
    assert "weightlora.trainers.callback" in modules_after("from weightlora import WeightLoraCallback")


def test_public_names_resolve() -> None:
    import weightlora

    missing = [name for name in weightlora.__all__ if not hasattr(weightlora, name)]
    assert missing == []
    with pytest.raises(AttributeError, match="Nonsense"):
        weightlora.Nonsense  # noqa: B018
