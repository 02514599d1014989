import pytest
import torch
from torch import nn

from weightlora.cli import costs
from weightlora.cli.costs import machine_is_busy, time_in_turns


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
    monkeypatch.setattr(costs, "_now", lambda: clock[0])
    monkeypatch.setattr(costs, "ROUNDS", 2)
    models = [Timed(clock, [9.0, 1.0, 2.0]), Timed(clock, [9.0, 3.0, 4.0])]
    models[1].eval()
    assert time_in_turns(models, {"x": torch.tensor(2.0)}) == [[1.0, 3.0], [2.0, 4.0]]
    assert all(model.weight.grad is None and not model.seconds for model in models)
