"""What `import weightlora` may load, that imports between the parts of the package point one way, and that each
source file has a test."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import fork_server

PACKAGE = Path(__file__).parents[1] / "src" / "weightlora"

# From the top down. A part may import the parts of lower layers, never one of its own layer. "__init__" is the public
# API: who says `from weightlora import WeightLora` imports that.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"compare"},
    {"train"},
    {"report"},
    {"__init__"},
    {"selection", "export"},
    {"trainers"},
    {"selector"},
    {"run", "checkpoint"},
    {"state", "summary", "manifest"},
    {"schema"},
    {"costs"},
    {"config", "probe", "drawing"},
    {"rules", "engines", "recompute", "prefix", "fresh"},
    {"gradients", "loss_scale", "stacks"},
    {"adapters", "budget", "measure"},
    {"directories", "guard", "layout", "optimizers"},
    {"extras", "files", "layers", "loaders", "mlx_names", "tensors", "values"},
    {"errors", "restoring", "wording"},
)
DEPTH = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}
# Measuring is no part of the method.
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ONLY_IMPORTED_BY = {"measure": {"cli", "compare", "train", "report", "costs"}}


def parts_of(package: Path) -> dict[str, list[Path]]:
    """The source files of each part: a module, or a sub-package with all that is in it."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        parts.setdefault(path.relative_to(package).parts[0].removesuffix(".py"), []).append(path)
    return parts


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
    """Every import that breaks the order of LAYERS, and every part that has no place in it."""
    parts = parts_of(package)
    wrong = [f"{part} has no place in LAYERS" for part in parts if part not in DEPTH]
    for part in parts.keys() & DEPTH.keys():
        for path in parts[part]:
            for line, name in imported_names(path, package):
                top, *rest = name.split(".")
                if top != package.name:
                    continue
                target = rest[0] if rest and rest[0] in parts else "__init__"
                if target == part or target not in DEPTH:
                    continue
                if DEPTH[target] <= DEPTH[part] or part not in ONLY_IMPORTED_BY.get(target, {part}):
                    wrong.append(f"{path.relative_to(package)}:{line}: {part} must not import {target}")
    return sorted(wrong)


def test_imports_point_one_way() -> None:
    assert wrong_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("state.py", "from .selector import WeightLora", "state must not import selector"),
        ("state.py", "import weightlora.selector", "state must not import selector"),
        ("state.py", "from . import selector", "state must not import selector"),
        ("state.py", "from weightlora import selector", "state must not import selector"),
        ("state.py", "from weightlora import WeightLora", "state must not import __init__"),
        (
            "adapters/handles.py",
            "def f():\n    from ..selector import WeightLora",
            "adapters must not import selector",
        ),
        ("rules/credit.py", "from ..engines import Engine", "rules must not import engines"),
        ("train/plan.py", "from ..cli import main", "train must not import cli"),
        ("trainers/trainer.py", "from ..measure import peak", "trainers must not import measure"),
        ("__init__.py", "from .cli import main", "__init__ must not import cli"),
        ("measure.py", "from .config import WeightLoraConfig", "measure must not import config"),
        ("novelty.py", "", "novelty has no place in LAYERS"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, message: str) -> None:
    package = tmp_path / "weightlora"
    sub_packages = {"adapters", "cli", "compare", "drawing", "engines", "report", "rules", "selection", "train"}
    sub_packages |= {"export", "prefix", "trainers"}
    for path in [f"{part}/__init__.py" if part in sub_packages else f"{part}.py" for part in DEPTH]:
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).touch()
    (package / "selector.py").write_text("import torch\nfrom .rules import Rule\nfrom weightlora.config import A\n")
    (package / "cli" / "__init__.py").write_text("from ..train import run\nfrom .. import WeightLora, measure\n")
    assert wrong_imports(package) == []

    (package / file).write_text(source)
    assert len(found := wrong_imports(package)) == 1
    assert found[0].endswith(message)


def test_nothing_in_the_package_imports_benchmarks() -> None:
    everything = (name for path in PACKAGE.rglob("*.py") for _, name in imported_names(path, PACKAGE))
    assert not [name for name in everything if name.split(".")[0] == "benchmarks"]


CORE = {"accelerate", "numpy", "peft", "safetensors", "torch"}  # what pyproject.toml asks for


def test_the_core_needs_the_core_dependencies_alone() -> None:
    """Everything below `__init__` but the trainers; imports inside functions are for what is optional."""
    parts = parts_of(PACKAGE)
    core = [path for part in parts if DEPTH[part] > DEPTH["trainers"] for path in parts[part]]
    assert len(core) > 25
    needed = {name.split(".")[0] for path in core for name in names_at_the_top(path)}
    assert needed - set(sys.stdlib_module_names) - {PACKAGE.name} <= CORE


def test_what_is_optional_says_what_installs_it() -> None:
    """Every package that is imported anywhere: needed, brought by PEFT, explained where it is missing, or a library
    that is only asked for where it made the object at hand."""
    from weightlora.extras import INSTALLED_BY

    brought, partners = {"huggingface_hub", "tqdm", "transformers", "yaml"}, {"deepspeed", "trackio", "wandb"}
    files = [path for paths in parts_of(PACKAGE).values() for path in paths]
    used = {name.split(".")[0] for path in files for _, name in third_party(path)}
    assert used - CORE - brought - partners <= set(INSTALLED_BY)


def third_party(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] not in sys.stdlib_module_names)


def names_at_the_top(path: Path) -> Iterator[str]:
    """Modules that a file imports when it is loaded."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


def circles(package: Path) -> list[str]:
    """Files that import one another in a circle, function bodies included; a package's own __init__ aside."""
    files = {
        ".".join([package.name, *path.relative_to(package).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in package.rglob("*.py")
    }
    arrows: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = {name if name in files else name.rpartition(".")[0] for _, name in imported_names(path, package)}
        arrows[module] = {target for target in targets & files.keys() if not module.startswith(f"{target}.")}
    order = TopologicalSorter(arrows)
    try:
        order.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def without_tests(root: Path) -> list[str]:
    """Source files without a test at the path that mirrors theirs; `__init__.py` is tested with what it gathers."""
    missing = []
    for sources, tests in (("src/weightlora", "tests"), ("benchmarks", "tests/benchmarks")):
        for path in sorted((root / sources).rglob("*.py")):
            mirror = root / tests / path.relative_to(root / sources).with_name(f"test_{path.name}")
            if path.name != "__init__.py" and not (mirror.is_file() and "def test_" in mirror.read_text("utf-8")):
                missing.append(f"{path.relative_to(root)} has no test in {mirror.relative_to(root)}")
    return missing


def test_every_source_file_has_a_test_file() -> None:
    assert without_tests(PACKAGE.parents[1]) == []


def test_a_source_file_without_a_test_is_found(tmp_path: Path) -> None:
    for path in ("src/weightlora/__init__.py", "src/weightlora/rules/luck.py", "benchmarks/tables.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    wanted = [tmp_path / "tests/rules/test_luck.py", tmp_path / "tests/benchmarks/test_tables.py"]
    assert [line.rpartition(" ")[2] for line in without_tests(tmp_path)] == [
        path.relative_to(tmp_path).as_posix() for path in wanted
    ]
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert len(without_tests(tmp_path)) == 2, "an empty file is no test"
    for path in wanted:
        path.write_text("def test_it(): ...\n")
    assert without_tests(tmp_path) == []


def test_no_file_is_longer_than_300_lines() -> None:
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "benchmarks").rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_the_spine_can_be_read_in_one_sitting() -> None:
    """Selector, rules, budget and adapters: lines of code, without blank lines, comments and docstrings."""
    spine = [PACKAGE / "selector.py", PACKAGE / "budget.py"]
    spine += [*(PACKAGE / "rules").glob("*.py"), *(PACKAGE / "adapters").glob("*.py")]
    assert sum(map(lines_of_code, spine)) < 1200


def lines_of_code(path: Path) -> int:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and ast.get_docstring(node) if isinstance(node, DOCUMENTED) else False:
            node.body = node.body[1:] or [ast.Pass()]
    return len(ast.unparse(tree).splitlines())


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import weightlora")
    assert not loaded & {"datasets", "lightning", "matplotlib", "rich", "sklearn", "transformers.trainer", "trl"}
    above = [part for part in DEPTH if DEPTH[part] < DEPTH["__init__"]]
    assert not loaded & {f"weightlora.{part}" for part in [*above, "measure", "trainers"]}


@pytest.mark.slow
def test_the_callback_is_loaded_when_asked_for() -> None:
    code = "import sys\nfrom weightlora import {}\nprint('weightlora.trainers.callback' in sys.modules)"
    for name, loads in (("WeightLora", False), ("WeightLoraCallback", True)):
        assert fork_server().run("-c", code.format(name)).stdout == f"{loads}\n"


@pytest.mark.slow
def test_public_names_resolve() -> None:
    import weightlora

    of_trl = set() if find_spec("trl") else {"WeightLoraSFTTrainer"}
    missing = [name for name in weightlora.__all__ if name not in of_trl and not hasattr(weightlora, name)]
    assert missing == []
    with pytest.raises(AttributeError, match="Nonsense"):
        weightlora.Nonsense  # noqa: B018
