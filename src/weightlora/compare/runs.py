"""The runs of a comparison: their settings, where their results are, and whether these count."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DataError
from ..files import move_aside, sha256_of
from ..train.result import Result, read_result

WEIGHTS = {".safetensors", ".bin", ".gguf"}
PLACES = {"validation": "tuning", "test": "results"}


@dataclass(frozen=True)
class Run:
    """One run of a method at a learning rate and a seed.

    Attributes:
        method: Key of the method registry.
        seed: Seed of the head, the data order, dropout, and of everything that the method draws.
        split: What it is evaluated on: `"validation"` to choose a rate, `"test"` to compare.
        with_validation: Whether a validation split is taken off the training rows.
        settings: Arguments of `weightlora train`, all but the seed.
        data: Name -> SHA-256 of each data file.
        output: The result file.
    """

    method: str
    seed: int
    split: str
    with_validation: bool
    settings: Mapping[str, Any]
    data: Mapping[str, str]
    output: Path

    @property
    def rate(self) -> float:
        return float(self.settings["learning_rate"])

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"{self.method} at {self.rate:g}" if self.split == "validation" else f"{self.method} seed {self.seed}"

    def record(self) -> dict[str, Any]:
        """All settings of the run, as they are stored in the `settings` of its result."""
        return {
            **self.settings,
            "compare": {"split": self.split, "validation": self.with_validation, "data": dict(self.data)},
        }

    def result(self) -> Result | None:
        """The result of the run. None if there is none with the same settings and version."""
        try:
            result = read_result(self.output)
        except DataError:
            return None
        same = result.settings == self.record() and (result.method, result.seed) == (self.method, self.seed)
        return result if same and result.versions.get("weightlora") == __version__ else None

    def is_done(self) -> bool:
        return self.result() is not None


def set_aside(runs: Sequence[Run]) -> list[Path]:
    """Rename files that are in the place of a result but do not count to `*.aside`; returns the new names."""
    return [move_aside(run.output) for run in runs if run.output.exists() and not run.is_done()]


def read_results(runs: Sequence[Run]) -> list[tuple[Run, Result]]:
    """The runs that are done, with their results."""
    return [(run, result) for run in runs if (result := run.result()) is not None]


@cache
def fingerprint(path: Path) -> str:
    """The SHA-256 of a file; of one with weights above 64 MB, that of its size, its first and its last megabyte."""
    size = path.stat().st_size
    if path.suffix not in WEIGHTS or size <= 64 << 20:
        return sha256_of(path)
    with path.open("rb") as file:
        ends = file.read(1 << 20)
        file.seek(-(1 << 20), 2)
        return hashlib.sha256(b"%d " % size + ends + file.read()).hexdigest()
