"""How a training run is shown: a bar in a terminal, a few lines elsewhere."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from ..adapters import find_adapters
from ..train.methods import Prepared
from ..trainers.callback import WeightLoraCallback

State = Callable[[], tuple[str, int]]
"""Gives the current phase and the number of active adapters."""

Steps = Callable[[int], int]
"""Maps the steps of the training to those that are shown, once training has begun."""

DOING = {"warmup": "warming up", "select": "selecting", "train": "training", "chosen": "chose"}


def show_progress(console: Console, title: str, prepared: Prepared) -> list[TrainerCallback]:
    """Callbacks that show a run of a prepared method on this console."""
    selection = _selection(prepared)
    adapters = len(find_adapters(prepared.model, check=False))

    def state() -> tuple[str, int]:
        selector = selection and selection.selector
        return ("train", adapters) if not selector else (selector.phase, len(selector.kept))

    return [
        *show_choice(console, prepared),
        progress_callback(console, title, state),
        EvaluationStatus(console, title),
    ]


def choice_progress(console: Console, title: str, prepared: Prepared) -> list[TrainerCallback]:
    """Callbacks that show a run up to its choice on this console."""
    selection = _selection(prepared)
    assert selection is not None  # the method chooses

    def state() -> tuple[str, int]:
        selector = selection.selector
        if selector is None:
            return "select", 0
        return "chosen" if selector.phase == "train" else selector.phase, len(selector.kept)

    def steps(of_training: int) -> int:
        return of_training if selection.selector is None else selection.selector.config.steps

    return [progress_callback(console, title, state, steps)]


def show_choice(console: Console, prepared: Prepared) -> list[TrainerCallback]:
    """A callback that prints the choice of a prepared method on this console; none if the method makes no choice."""
    selection = _selection(prepared)
    return [] if selection is None else [Choice(console, selection)]


def _selection(prepared: Prepared) -> WeightLoraCallback | None:
    return next((c for c in prepared.callbacks if isinstance(c, WeightLoraCallback)), None)


def progress_callback(console: Console, title: str, state: State, steps: Steps = int) -> "TrainingBar | TrainingLines":
    """What shows a run on this console: `TrainingBar` in a terminal, `TrainingLines` elsewhere."""
    return (TrainingBar if console.is_terminal else TrainingLines)(console, title, state, steps)


class Choice(TrainerCallback):
    """Prints the summary of a selection once: when the choice is made, by the first process.

    It comes after the callback of the selection. A run that resumes after its choice prints nothing.
    """

    def __init__(self, console: Console, selection: WeightLoraCallback) -> None:
        self._console, self._selection, self._said = console, selection, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and self._chosen():
            self._said = True
        self._say(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._say(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._say(state)

    def _chosen(self) -> bool:
        selector = self._selection.selector
        return selector is not None and selector.phase == "train"

    def _say(self, state: Any) -> None:
        if self._said or not self._chosen():
            return
        self._said = True
        if state.is_world_process_zero:
            assert self._selection.selector is not None
            self._console.print(self._selection.selector.summary().text, markup=False)


class TrainingBar(TrainerCallback):
    """One bar: step, phase, active adapters, time elapsed and time left (from the speed of the last 20 seconds)."""

    def __init__(self, console: Console, title: str, state: State, steps: Steps = int) -> None:
        self._title, self._state, self._steps = title, state, steps
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[doing]:<21}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
            speed_estimate_period=20,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._task = self._progress.add_task(
            self._title, total=self._steps(state.max_steps), doing=_doing(self._state)
        )
        self._progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.update(self._task, completed=state.global_step, doing=_doing(self._state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.stop()


class TrainingLines(TrainerCallback):
    """A line after each quarter of the steps, and after the step that ended a phase."""

    def __init__(self, console: Console, title: str, state: State, steps: Steps = int) -> None:
        self._console, self._title, self._state, self._steps = console, title, state, steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phase, self._start = self._state()[0], time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        phase, step, steps = self._state()[0], state.global_step, self._steps(state.max_steps)
        if phase != self._phase or 4 * step // steps > 4 * (step - 1) // steps:
            seconds = time.monotonic() - self._start
            self._console.print(f"{self._title}: step {step}/{steps}, {_doing(self._state)}, {seconds:.0f} s")
        self._phase = phase


class EvaluationStatus(TrainerCallback):
    """Shows in a terminal that the evaluation is running."""

    def __init__(self, console: Console, title: str) -> None:
        self._status = console.status(f"{title}: evaluating")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._status.start()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._status.stop()


def _doing(state: State) -> str:
    phase, active = state()
    return f"{DOING[phase]} {active} adapters"
