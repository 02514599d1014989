"""What a run directory says about its steps, thinned to what a picture can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import parse_line, read_lines
from ..run import HISTORY, LOG, step_of
from ..values import is_finite, is_int

MOST_POINTS = 400
MOST_VALUES = 40_000  # points of all curves together


@dataclass(frozen=True)
class Decision:
    """The end of a round.

    Attributes:
        step: The last step before it.
        kept: Names of the modules that stayed.
    """

    step: int
    kept: frozenset[str]


@dataclass(frozen=True)
class History:
    """Scores over the steps.

    Attributes:
        recorded: Number of steps in the file.
        steps: The m steps that were read, ascending: evenly spaced ones, with the first, the last and those before
            decisions.
        scores: Shape `(m, n)`, in model order.
        decisions: All of them.
    """

    recorded: int
    steps: list[int]
    scores: list[list[float]]
    decisions: list[Decision]


def read_history(directory: Path, modules: int) -> History:
    """Read `history.jsonl`, also while it grows; a line that is cut short at its end is left out.

    Of m steps, at most 400 are read, and at most 40,000 scores.

    Args:
        directory: The run directory. Without the file, the history is empty.
        modules: n, the scores that each step must have.

    Raises:
        DataError: If a line is damaged.
    """
    path = directory / HISTORY
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    places: list[int] = []  # of the lines with steps
    decisions, needed = [], set()
    for place, line in enumerate(lines):
        if b'"kept"' in line:
            decisions.append(_decision(parse_line(path, place + 1, line), path, place + 1))
            needed.add(len(places) - 1)
        elif line.strip():
            places.append(place)
    most = max(2, min(MOST_POINTS, MOST_VALUES // modules))
    chosen = sorted({*thin(len(places), most), *(needed - {-1})})
    steps, scores = [], []
    for place in (places[index] for index in chosen):
        entry = parse_line(path, place + 1, lines[place])
        values = entry.get("score")
        if not (isinstance(values, list) and len(values) == modules and all(map(is_finite, values))):
            raise DataError(f"{path}, line {place + 1} has no score for each of the {modules} modules: delete it.")
        steps.append(step_of(entry, path, place + 1))
        scores.append(values)
    return History(len(places), steps, scores, decisions)


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Entries of `log.jsonl`, if there is one. Each has a `step`.

    Raises:
        DataError: If the file is damaged.
    """
    path = directory / LOG
    return [entry for entry in read_lines(path) if is_int(entry.get("step"))] if path.is_file() else []


def thin_log(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most 400 of the entries of evaluations, which are few, and at most 400 of the others."""
    places: dict[bool, list[int]] = {True: [], False: []}
    for place, entry in enumerate(log):
        places["eval_loss" in entry].append(place)
    return [log[i] for i in sorted(kind[i] for kind in places.values() for i in thin(len(kind), MOST_POINTS))]


def thin(count: int, most: int) -> list[int]:
    """At most `most` of the indices below `count`, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def _decision(entry: dict[str, Any], path: Path, number: int) -> Decision:
    kept = entry.get("kept")
    if not (isinstance(kept, list) and all(isinstance(name, str) for name in kept)):
        raise DataError(f"{path}, line {number} has no list of names as 'kept': delete that line.")
    return Decision(step_of(entry, path, number), frozenset(kept))
