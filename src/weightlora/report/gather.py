"""Everything that a run directory says about a run, in one record."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config import WeightLoraConfig
from ..drawing.picture import score_label
from ..errors import DataError, StateError
from ..files import resolved
from ..layout import lay_out
from ..rules import RULES
from ..selection import Selection
from ..selection.formats import FORMATS
from .costs import Cost, Outcome, costs_of, read_outcome
from .history import History, read_history, read_log, thin_log
from .reasons import places_by_score, reasons, stopped_by_bound


@dataclass(frozen=True)
class ModuleRow:
    """One module.

    Attributes:
        name: Its full name.
        row, column: Its place in the grid of module types and layers.
        kept: Whether it has an adapter.
        score: The last one; None if there is none.
        place: Its place by score, 1 for the largest.
        rank: Of its adapter; None if it has none any more.
        parameters: Of its adapter at the start.
        bounded: Whether a bound on parameters, or a budget of time or memory, kept it out, in spite of its score.
        why: One sentence.
        seeds: At how many seeds it was chosen, if there were several.
    """

    name: str
    row: int
    column: int
    kept: bool
    score: float | None
    place: int | None
    rank: int | None
    parameters: int
    bounded: bool
    why: str
    seeds: int | None


@dataclass(frozen=True)
class RunReport:
    """What is known of a run.

    Attributes:
        name: Of its directory.
        selection: The choice, as `selection.json` has it.
        step: Steps of the selection that were made.
        steps: Steps that the selection has.
        score_label: What a score is.
        rows, columns: Labels of the grid.
        modules: In model order.
        history: Scores over the steps, thinned.
        log: Log entries, thinned. Each has a `step`.
        costs: Before and after the decision.
        outcome: Split -> metric -> value, of a finished run of one of the commands.
        snippets: Tool -> the snippet to paste. Empty before the decision.
        settings: Setting -> value, and whether it differs from the default.
        versions: Package -> version.
        machine: The hardware, if it is known.

    Example:
        ```python
        from weightlora.report import read_run

        print(read_run("runs/first").snippets["axolotl"])
        ```
    """

    name: str
    selection: Selection
    step: int
    steps: int | None
    score_label: str
    rows: list[str]
    columns: list[str]
    modules: list[ModuleRow]
    history: History
    log: list[dict[str, Any]]
    costs: list[Cost]
    outcome: dict[str, dict[str, float]]
    snippets: dict[str, str]
    settings: dict[str, tuple[Any, bool]]
    versions: dict[str, str]
    machine: dict[str, Any]

    @property
    def final(self) -> bool:
        """Whether the choice is made."""
        return self.selection.final

    @property
    def kept(self) -> int:
        """Number of modules that have an adapter."""
        return sum(module.kept for module in self.modules)

    @property
    def decisions(self) -> list[int]:
        """Steps of the decisions."""
        if not self.history.decisions and self.final and self.selection.step:
            return [self.selection.step]
        return [decision.step for decision in self.history.decisions]

    def losses(self) -> dict[str, list[tuple[int, float]]]:
        """`"training"` and `"evaluation"` -> pairs of step and loss, where the log has them."""
        names = {"training": "loss", "evaluation": "eval_loss"}
        curves = {
            name: [(entry["step"], entry[key]) for entry in self.log if isinstance(entry.get(key), int | float)]
            for name, key in names.items()
        }
        return {name: curve for name, curve in curves.items() if curve}

    def frontier(self) -> dict[str, Any] | None:
        """What other budgets of step time or memory would keep, as `frontier_figure` takes it; None without one."""
        costs = self.selection.costs
        if costs is None or not costs["frontier"]:
            return None
        memory = costs["resource"] == "memory"
        unit = 2**30 if memory else costs["whole"]
        whole = sum(max(0.0, score) for score in self.selection.scores.values() if score is not None) or 1.0
        return {
            "points": [(p["cost"] / unit, p["score"] / whole, p["kept"]) for p in costs["frontier"]],
            "chosen": (costs["predicted"] / unit, costs["score"] / whole),
            "budget": costs["budget"] / unit,
            "label": "peak memory of a step, GiB" if memory else "step time, as a part of LoRA on all modules",
        }

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        values = {
            name: value for name, value in vars(self).items() if name not in ("selection", "history", "settings")
        }
        history = {
            "recorded_steps": self.history.recorded,
            "steps": self.history.steps,
            "scores": self.history.scores,
            "decisions": [
                {"step": decision.step, "kept": [m.name for m in self.modules if m.name in decision.kept]}
                for decision in self.history.decisions
            ],
        }
        return {
            **values,
            "modules": [asdict(module) for module in self.modules],
            "costs": [asdict(cost) for cost in self.costs],
            "history": history,
            "budget": self.selection.costs,
            "final": self.final,
            "model": self.selection.model,
            "rule": self.selection.rule,
            "module_names": self.selection.module_names,
            "target_modules": self.selection.target_modules,
            "target_parameters": self.selection.target_parameters,
            "config": dict(self.selection.config),
        }


def read_run(directory: str | os.PathLike[str]) -> RunReport:
    """Read a run directory, also during the run.

    Raises:
        DataError: If it is not a run directory, a file in it is damaged, or the run has made no step yet.

    Example:
        ```python
        from weightlora.report import read_run

        for module in read_run("runs/first").modules:
            print(module.name, module.why)
        ```
    """
    path = Path(directory)
    selection = Selection.load(path)
    history = read_history(path, len(selection.modules))
    if not selection.final and not history.steps:
        raise DataError(f"{path} has no step of the selection yet: wait for the first one, then ask again.")
    outcome = found if (found := read_outcome(path)).is_of(selection) else Outcome()
    log = read_log(path)
    decision = history.decisions[-1].step if history.decisions and selection.final else None
    live = selection.final or not history.scores
    scores: Sequence[float | None] = [m.score for m in selection.modules] if live else history.scores[-1]
    grid = lay_out([module.name for module in selection.modules])
    return RunReport(
        name=path.resolve().name,
        selection=selection,
        step=selection.step if live else max(history.steps[-1], selection.step),
        steps=_steps(selection),
        score_label=score_label(selection.rule),
        rows=grid.rows,
        columns=grid.columns,
        modules=_rows_of(selection, history, scores, grid.cells),
        history=history,
        log=thin_log(log),
        costs=costs_of(selection, outcome, log, selection.step if decision is None else decision),
        outcome=outcome.metrics,
        snippets=_snippets(selection),
        settings=_settings(selection),
        versions={name: str(value) for name, value in {**selection.versions, **outcome.versions}.items()},
        machine=outcome.machine,
    )


def read_runs(directories: Sequence[str | os.PathLike[str]]) -> list[RunReport]:
    """Read several run directories; where two have one name, each is named by its whole path.

    Raises:
        DataError: If one of them cannot be read, or is given twice.
    """
    paths = [Path(directory) for directory in directories]
    if twice := [path for path, count in Counter(map(resolved, paths)).items() if count > 1]:
        raise DataError(f"{twice[0]} is given twice: a run is compared with other runs.")
    runs = [read_run(path) for path in paths]
    names = Counter(run.name for run in runs)
    return [run if names[run.name] == 1 else replace(run, name=str(p)) for run, p in zip(runs, paths, strict=True)]


def as_data(runs: Sequence[RunReport]) -> dict[str, Any]:
    """What `weightlora show --json` prints."""
    return {"format": 1, "runs": [run.to_dict() for run in runs]}


def _rows_of(
    selection: Selection, history: History, scores: Sequence[float | None], cells: Sequence[tuple[int, int]]
) -> list[ModuleRow]:
    columns = zip(
        selection.modules,
        cells,
        scores,
        places_by_score(scores, selection.config),
        stopped_by_bound(selection, history.decisions),
        reasons(selection, history.decisions),
        strict=True,
    )
    return [
        ModuleRow(
            name=module.name,
            row=row,
            column=column,
            kept=module.kept,
            score=score,
            place=place,
            rank=module.rank,
            parameters=module.parameters,
            bounded=bounded,
            why=why,
            seeds=None if selection.seeds is None else selection.seeds.get(module.name, 0),
        )
        for module, (row, column), score, place, bounded, why in columns
    ]


def _steps(selection: Selection) -> int | None:
    steps = selection.config.get("select_steps")
    return steps if isinstance(steps, int) else None


def _snippets(selection: Selection) -> dict[str, str]:
    """The snippet for each tool; none before the decision, or where nothing was chosen."""
    try:
        return {name: selection.to(name).rstrip("\n") for name in FORMATS}
    except StateError:
        return {}


def _settings(selection: Selection) -> dict[str, tuple[Any, bool]]:
    usual, rule = asdict(WeightLoraConfig()), selection.config.get("selection")
    if rule in RULES:  # whose own defaults are no wish of the user
        usual = asdict(WeightLoraConfig(selection=rule)) | {"selection": usual["selection"]}
    return {name: (value, name in usual and value != usual[name]) for name, value in selection.config.items()}
