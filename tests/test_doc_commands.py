"""The commands in README.md and docs/ are commands that exist, with flags that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.__main__ import COMMANDS as OF_BENCHMARKS
from pages import FENCE, ROOT, pages_with, task_pages

from weightlora.cli import build_parser
from weightlora.cli.select import own_parser
from weightlora.errors import WeightLoraError
from weightlora.train.arguments import make_parser

OTHERS = {"jq", "source"}
PARTED = {"|", ">", "&&", ";"}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a block of bash, without comments, and without what follows a pipe."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|>;&")
        words.whitespace_split = True
        found: list[str] = []
        for word in words:
            if word in PARTED:
                if found:
                    yield found
                if word == ">":
                    break
                found = []
            else:
                found.append(word)
        else:
            if found:
                yield found


def check(words: list[str]) -> None:
    """Raise an error if a command does not exist, or does not take these arguments."""
    match words:
        case ["weightlora", *arguments]:
            check_weightlora(arguments)
        case ["python", "-m", "benchmarks", *arguments]:
            _, rest = build_parser(OF_BENCHMARKS, "benchmarks", "").parse_known_args(arguments)
            assert not rest, rest
        case ["python", "-m", module]:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case ["torchrun", "--nproc_per_node", count, script, *_]:
            assert count.isdigit() and (ROOT / script).is_file(), script
        case ["accelerate", "launch", "-m", "weightlora", *arguments]:
            check_weightlora(arguments)
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        case ["pip", "install", what]:
            check_install(what)
        case [name, *_]:
            assert name in OTHERS, name


def check_weightlora(arguments: list[str]) -> None:
    found, rest = build_parser().parse_known_args(arguments)
    if found.command == "select":
        rest = own_parser().parse_known_args(rest)[1]
    if found.command in ("select", "train", "compare"):
        while "--config" in rest:
            place = rest.index("--config")
            assert (ROOT / rest[place + 1]).is_file() or not rest[place + 1].startswith("recipes/")
            del rest[place : place + 2]
        rest = make_parser().parse_known_args(rest)[1]
    assert not rest, f"weightlora {found.command} has no {' '.join(rest)}"


def check_install(what: str) -> None:
    """A clone or a wheel file of this version, with extras that there are."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    found = re.fullmatch(r"(\S+?)(?:\[([a-z,]+)\])?", what)
    assert found is not None and found[1] in (".", f"weightlora-{version[1]}-py3-none-any.whl"), what
    for extra in (found[2] or "").split(","):
        assert not extra or re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


@pytest.mark.parametrize("page", pages_with("bash"), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_exists(page: Path) -> None:
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match["info"] == "bash":
            for words in commands(match["body"]):
                check(words)


@pytest.mark.parametrize("page", task_pages())
def test_a_page_starts_with_a_block_that_runs(page: str) -> None:
    """Nothing but the title and one paragraph comes before it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    first = FENCE.search(text)
    assert first is not None and first["info"] in ("python", "bash") and not first["notest"]
    title, *before = text[: first.start()].strip().split("\n\n")
    assert title.startswith("# ") and "\n" not in title
    assert len(before) <= 1 and not any(part.startswith(("#", "|", "<", "!")) for part in before)


BLOCK = """\
# a comment
weightlora show runs/first --json | jq -r '.runs[0]'   # another
weightlora select --model ./bert \\
  --keep 0.25 > out.yaml
make a; make b
"""


def test_what_a_command_is() -> None:
    assert list(commands(BLOCK)) == [
        ["weightlora", "show", "runs/first", "--json"],
        ["jq", "-r", ".runs[0]"],
        ["weightlora", "select", "--model", "./bert", "--keep", "0.25"],
        ["make", "a"],
        ["make", "b"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "weightlora train --keep_time 0.6",
        "weightlora select --groups qkv",
        "weightlora compare --output_dir x --no_such_flag 1",
        "weightlora export a b --profiles merged",
        "python -m benchmarks sumarize",
        "python -m benchmarks.reedme",
        "python tests/none.py",
        "make nothing",
        "pip install '.[everything]'",
        "pip install weightlora-0.0.9-py3-none-any.whl",
        "pip install 'weightlora-0.1.0-py3-none-any.whl[everything]'",
        "wl select",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((AssertionError, SystemExit, WeightLoraError)):
        for words in commands(line):
            check(words)


def test_only_the_package_itself_is_downloaded_as_source() -> None:
    """With `:all:`, pip also builds what its build needs from source, and what that build needs, and so on."""
    text = "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "benchmarks/workloads/snippets.py")
    )
    found = re.findall(r"--no-binary (\S+) -d \S+ (\S+)==", text)
    assert len(found) == 3
    assert all(source == package for source, package in found)
