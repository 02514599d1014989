"""Runs every block of Python in README.md and docs/, so that what they show works.

The blocks of one file share a namespace, as a reader would type them one after another. A block that cannot run here
opens with ```python notest.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int  # of the first line of code, from 1
    info: list[str]
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks whose language is Python, `notest` ones included."""
    found = [
        Block(text.count("\n", 0, match.start("body")) + 1, match["info"].split(), match["body"])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if block.info[:1] == ["python"]]


def run(page: str, text: str) -> None:
    """Executes the blocks of one page; tracebacks point at the lines of the page."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if "notest" not in block.info:
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(str(page), page.read_text(encoding="utf-8"))


def test_there_are_blocks_to_run() -> None:
    assert any("notest" not in block.info for page in PAGES for block in blocks(page.read_text(encoding="utf-8")))


BROKEN = """\
Text.

```python
x = 1
```

```python notest
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
    assert [block.line for block in blocks(BROKEN)] == [4, 8, 16]
    with pytest.raises(ZeroDivisionError) as error:
        run("page.md", BROKEN)
    last = error.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("page.md", 16)
