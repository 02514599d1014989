"""What is in the wheel, and what its metadata promises."""

import re
import subprocess
import sys
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from weightlora.extras import INSTALLED_BY

pytest.importorskip("hatchling", reason="hatchling is not installed: the extra `test` has it")

ROOT = Path(__file__).parents[2]
# Where a module's package has another name, or comes with another one.
PACKAGES = {"sklearn": "scikit-learn", "scipy": "scikit-learn", "markupsafe": "jinja2", "pyarrow": "datasets"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory], cwd=ROOT, check=True)
    [path] = directory.glob("*.whl")
    return ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    return message_from_string(read(wheel, "METADATA"))


def read(wheel: ZipFile, name: str) -> str:
    [path] = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_it_holds_the_package_and_nothing_else(wheel):
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "weightlora").rglob("*") if path.is_file()}
    files = {path for path in files if "__pycache__" not in path}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == files
    assert {Path(name).suffix for name in found} == {".py", ".typed", ".html", ".css", ".js"}
    assert {"weightlora/py.typed", "weightlora/report/templates/page.html"} <= found
    assert {name.partition("/")[2] for name in set(wheel.namelist()) - found} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_it_needs_five_packages(metadata):
    needed = {Requirement(line).name for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {"accelerate", "numpy", "peft", "safetensors", "torch"}
    assert (metadata["Name"], metadata["Requires-Python"]) == ("weightlora", ">=3.10")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] in (ROOT / "CITATION.cff").read_text()


def test_each_command_is_there(wheel):
    assert read(wheel, "entry_points.txt").split("\n") == ["[console_scripts]", "weightlora = weightlora.cli:main", ""]


def packages_of(metadata: Message, extra: str) -> set[str]:
    """What an extra installs by itself and by the extras that it names."""
    found: set[str] = set()
    for requirement in map(Requirement, metadata.get_all("Requires-Dist") or ()):
        if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
            if requirement.name == "weightlora":
                found |= set().union(*(packages_of(metadata, name) for name in requirement.extras))
            else:
                found.add(requirement.name)
    return found


@pytest.mark.parametrize("module", [name for name, by in INSTALLED_BY.items() if by.startswith("weightlora[")])
def test_what_a_sentence_says_installs_the_package(metadata, module):
    extra = re.fullmatch(r"weightlora\[(\w+)\]", INSTALLED_BY[module])
    assert extra is not None and extra[1] in metadata.get_all("Provides-Extra")
    assert PACKAGES.get(module, module).replace("_", "-") in packages_of(metadata, extra[1])


def test_the_commands_have_all_that_they_import(metadata):
    """`weightlora compare` and `weightlora quickstart` ask for these before they begin."""
    needed = {"datasets", "matplotlib", "pyyaml", "rich", "scikit-learn"}
    assert needed <= packages_of(metadata, "compare") and needed <= packages_of(metadata, "demo")
    assert packages_of(metadata, "compare") - packages_of(metadata, "train") == {"matplotlib"}
