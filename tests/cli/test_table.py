import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from weightlora.cli import table
from weightlora.cli.table import ROWS, machine_is_busy, show, time_in_turns

COLUMN = dict.fromkeys(ROWS, 1)


@pytest.mark.parametrize(("load", "busy"), [(4.0, False), (5.0, False), (5.1, True)])
def test_a_busy_machine_is_noticed(monkeypatch: pytest.MonkeyPatch, load: float, busy: bool):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert machine_is_busy() is busy


class Timed(nn.Module):
    """Its steps take as many seconds as it is told, on a clock of the test."""

    def __init__(self, clock: list[float], seconds: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.weight = clock, seconds, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> "Timed":
        self.clock[0] += self.seconds.pop(0)
        assert self.training and self.weight.grad is None
        self.loss = self.weight * x
        return self


def test_models_are_timed_in_turns_and_the_first_round_warms_up(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("weightlora.costs.seconds._now", lambda device: clock[0])
    monkeypatch.setattr(table, "ROUNDS", 2)
    models = [Timed(clock, [9.0, 1.0, 2.0]), Timed(clock, [9.0, 3.0, 4.0])]
    models[1].eval()
    assert time_in_turns(models, {"x": torch.tensor(2.0)}) == [[1.0, 3.0], [2.0, 4.0]]
    assert all(model.weight.grad is None and not model.seconds for model in models)


def shown(kept: list[str], width: int = 80, busy: bool = False, directory: str = "runs/x") -> str:
    """What is printed where LoRA on all modules was not trained."""
    columns = {"all": COLUMN | {"test_loss": None, "test_accuracy": None}, "kept": COLUMN}
    figures = {"columns": columns, "test_sentences": 5, "busy": busy}
    console = Console(file=io.StringIO(), width=width)
    show(console, SimpleNamespace(evidence=figures, kept=kept), directory)
    return console.file.getvalue()


def test_the_table_says_that_step_times_were_disturbed():
    outputs = [shown([], busy=busy) for busy in (False, True)]
    assert ["Other programs" in output for output in outputs] == [False, True]
    assert all("LoRA on all" not in output for output in outputs)  # there is no such column to name


def test_the_table_says_where_the_backward_pass_ends():
    inside, outside = (shown(kept, width=200) for kept in (["h.4.value", "h.12.value", "pooler"], ["pooler"]))
    assert "lowest kept adapter, in layer 4:" in inside and "lowest kept" not in outside


def test_the_command_at_the_end_can_be_pasted():
    assert "weightlora show 'my runs/x' --output page.html\n" in shown([], directory="my runs/x")
