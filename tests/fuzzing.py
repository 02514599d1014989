"""What the fuzz tests share: the number of examples, odd values, damaged bytes, and the outcomes that are allowed."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st

from weightlora.errors import WeightLoraError

Outcome = TypeVar("Outcome")

VARIABLE = "WEIGHTLORA_FUZZ"
"""Multiplies the number of examples. Then they are new ones at each run, and Hypothesis prints how to repeat one."""

SECONDS, BYTES = 10.0, 2**30


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Settings for so many examples, the same at each run unless the variable is set."""
    more = os.environ.get(VARIABLE)
    return settings(
        max_examples=examples * int(more or 1),
        derandomize=more is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


ODD = (
    *(
        "",
        " ",
        "null",
        "nan",
        "../../x",
        "/",
        "..",
        "...",
        "--bf16",
        "a\nb",
        "a\u2028b",
        "\x00",
        "\ud83d\ude00",
        "{",
        "%s",
    ),
    *("(a+)+$", "(", "[", "*", "~", "x" * 3000, "\u0085", "é", "1e400", "0x10", "{text}", "{text:>999999999}", "-1"),
)
texts = st.sampled_from(ODD) | st.text(max_size=20)
numbers = st.integers() | st.floats() | st.sampled_from([10**9, -1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, 0.5])
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
"""Values of JSON and YAML."""


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bytes changed, left out, put in or repeated."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(["change", "leave out", "put in", "repeat", "cut"]))
        some = draw(
            st.binary(max_size=4) | st.sampled_from([b"[" * 200, b'{"a":' * 70, b"\xff", b"\n", b"\r", b'"', b","])
        )
        if kind == "change":
            content = content[:place] + some + content[place + len(some) :]
        elif kind == "leave out":
            content = content[:place] + content[place + length :]
        elif kind == "put in":
            content = content[:place] + some + content[place:]
        elif kind == "repeat":
            content = content[:place] + content[max(0, place - length) : place] * 3 + content[place:]
        else:
            content = content[:place]
    return content


@dataclass
class Row:
    """What came of the examples of one kind."""

    tried: int = 0
    refused: int = 0
    harmless: int = 0
    possible: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def add(self, seconds: float, size: int, **counts: int) -> None:
        """Count one example."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)
        self.seconds, self.bytes = max(self.seconds, seconds), max(self.bytes, size)


TALLY: dict[str, Row] = {}
"""By kind, the outcomes of the test that runs."""


def outcome_of(
    action: Callable[[], Outcome], kind: str = "", is_possible: Callable[[Outcome], bool] | None = None
) -> Outcome | None:
    """The result of the action, or None if it was refused in one sentence, in both cases within 10 s and 1 GB.

    Any other error goes through, and fails the test.

    Args:
        action: What may be refused.
        kind: The row of the table that counts the example.
        is_possible: Whether a result is that of other content, which a run could have written, and not that of the
            content before it was changed.
    """
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, counts = None, {"refused": 1}
    try:
        result = action()
        counts = {"possible" if is_possible is not None and is_possible(result) else "harmless": 1}
    except WeightLoraError as error:
        sentence = " ".join(str(error).split())  # as the command line prints it
        assert sentence and len(sentence) < 5000, error
    finally:
        seconds = time.process_time() - began  # of this process alone, however busy the machine is
        size = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert seconds < SECONDS
        assert size < BYTES
        TALLY.setdefault(kind, Row()).add(seconds, size, tried=1, **counts)
    event(f"{kind} {', '.join(counts)}".strip())
    return result


def table(rows: dict[str, Row]) -> str:
    """What was tried and what came of it, in Markdown."""
    head = "| attack | tried | refused | harmless | possible | s, at most | MB, at most |"
    lines = [head, "| --- |" + " ---: |" * 6]
    total = Row()
    for kind, row in (*sorted(rows.items()), ("all", total)):
        if row is not total:
            counts = {name: getattr(row, name) for name in ("tried", "refused", "harmless", "possible")}
            total.add(row.seconds, row.bytes, **counts)
        numbers = (row.tried, row.refused, row.harmless, row.possible, f"{row.seconds:.1f}", row.bytes // 2**20)
        lines.append(f"| {' | '.join(map(str, (kind, *numbers)))} |")
    return "\n".join(lines)
