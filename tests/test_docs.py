"""Runs every block of Python in README.md and docs/, so that what they show works.

The blocks of one file share a namespace, as a reader would type them one after another. Right above a block that
cannot run here stands the comment `<!-- notest -->`.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from pages import FENCE, PAGES, ROOT, pages_with


class Block(NamedTuple):
    line: int  # of the first line of code, from 1
    runs: bool
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks whose language is Python, those that cannot run included."""
    return [
        Block(text.count("\n", 0, match.start("body")) + 1, not match["notest"], match["body"])
        for match in FENCE.finditer(text)
        if match["info"] == "python"
    ]


def run(page: str, text: str) -> None:
    """Executes the blocks of one page; tracebacks point at the lines of the page."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.runs:
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(str(page), page.read_text(encoding="utf-8"))


def test_there_are_blocks_to_run() -> None:
    assert any(block.runs for page in PAGES for block in blocks(page.read_text(encoding="utf-8")))


def test_a_fence_names_its_language_and_nothing_else() -> None:
    """The site does not take a fence that says more, and shows all that follows as one block."""
    found = ((page, match["info"]) for page in PAGES for match in FENCE.finditer(page.read_text(encoding="utf-8")))
    assert [(page, info) for page, info in found if not re.fullmatch("[a-z]*", info)] == []


TOOLS = {
    **{"axolotl": "axolotl", "LLaMA-Factory": "llamafactory", "ms-swift": "ms-swift", "Unsloth": "unsloth"},
    **{
        "torchtune": "torchtune",
        "mlx-lm": "mlx-lm",
        "SGLang": "sglang",
        "xllamacpp": "xllamacpp",
        "llama-cpp-python": "llama-cpp-python",
    },
}


@pytest.mark.parametrize("name", TOOLS)
def test_the_version_of_a_tool_is_the_one_that_is_tested(name: str) -> None:
    """As `make consumers` installs it."""
    installed = "".join((ROOT / f"requirements-consumers{more}.txt").read_text() for more in ("", "-apart"))
    installed += (ROOT / "Makefile").read_text()
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("target_modules.md", "export.md"))
    versions = re.findall(rf"{name} (\d[\d.]*\d)(?! or later)\b", " ".join(text.split()))
    assert versions
    for version in versions:
        assert re.search(rf"(?<![\w-]){TOOLS[name]}=={re.escape(version)}(?![\d.])", installed), version


BROKEN = """\
Text.

```python
x = 1
```

<!-- notest -->
```python
x = 2
```

```bash
ls
```

```python
1 / (x - 1)
```
"""


def test_a_broken_block_fails() -> None:
    assert [block.line for block in blocks(BROKEN)] == [4, 9, 17]
    with pytest.raises(ZeroDivisionError) as error:
        run("page.md", BROKEN)
    last = error.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("page.md", 17)
