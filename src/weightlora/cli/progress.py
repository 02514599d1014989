"""How a training run is shown: a bar in a terminal, a few lines elsewhere."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from ..adapters import find_adapters
from ..selector import WeightLora
from ..train.methods import Prepared
from ..trainers.callback import WeightLoraCallback
from ..wording import counted

DOING = {"warmup": "warming up", "select": "selecting", "train": "training"}


def show_progress(console: Console, title: str, prepared: Prepared) -> list[TrainerCallback]:
    """Callbacks that show a run of a prepared method on this console."""
    adapters = len(find_adapters(prepared.model, check=False))
    return [
        *show_choice(console, prepared),
        TrainingProgress(console, title, prepared.selection, adapters),
        EvaluationStatus(console, title),
    ]


def choice_progress(console: Console, title: str, prepared: Prepared) -> list[TrainerCallback]:
    """Callbacks that show a run up to its choice on this console."""
    return [TrainingProgress(console, title, prepared.selection, to_choice=True)]


def show_choice(console: Console, prepared: Prepared) -> list[TrainerCallback]:
    """A callback that prints the choice of a prepared method on this console; none if the method makes no choice."""
    return [] if prepared.selection is None else [Choice(console, prepared.selection)]


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


class TrainingProgress(TrainerCallback):
    """Step, phase, active adapters and time: in a terminal a bar, with the time left at the speed of 20 seconds.

    Elsewhere a line after each quarter of the steps, and after the step that ended a phase.

    Args:
        console: Where to show it.
        title: Name of the run.
        selection: What chooses, if something does; its callback comes first.
        adapters: Number of adapters, if nothing chooses.
        to_choice: Whether the run ends at the choice.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        selection: WeightLoraCallback | None,
        adapters: int = 0,
        to_choice: bool = False,
    ) -> None:
        self._console, self._title = console, title
        self._selection, self._adapters, self._to_choice = selection, adapters, to_choice
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[doing]:<21}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            expand=True,
            speed_estimate_period=20,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        selector, (self._phase, doing) = self._selector, self._now()
        self._steps = selector.config.steps if self._to_choice and selector else state.max_steps
        self._task = self._progress.add_task(self._title, total=self._steps, doing=doing)
        self._progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before, step, steps = self._phase, state.global_step, self._steps
        self._phase, doing = self._now()
        self._progress.update(self._task, completed=step, doing=doing)
        if not self._console.is_terminal and (self._phase != before or 4 * step // steps > 4 * (step - 1) // steps):
            seconds = self._progress.tasks[0].elapsed
            self._console.print(f"{self._title}: step {step}/{steps}, {doing}, {seconds:.0f} s")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.stop()

    @property
    def _selector(self) -> WeightLora | None:
        return self._selection.selector if self._selection else None

    def _now(self) -> tuple[str, str]:
        """The phase, and what is done in it."""
        if (selector := self._selector) is None:
            return "train", f"training {counted(self._adapters, 'adapter')}"
        doing = "chose" if self._to_choice and selector.phase == "train" else DOING[selector.phase]
        return selector.phase, f"{doing} {counted(len(selector.kept), 'adapter')}"


class EvaluationStatus(TrainerCallback):
    """Shows in a terminal that the evaluation is running."""

    def __init__(self, console: Console, title: str) -> None:
        self._status = console.status(f"{title}: evaluating")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._status.start()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._status.stop()
