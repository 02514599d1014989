import pytest

from weightlora.cli.costs import machine_is_busy


@pytest.mark.parametrize(("load", "busy"), [(4.0, False), (5.0, False), (5.1, True)])
def test_a_busy_machine_is_noticed(monkeypatch: pytest.MonkeyPatch, load: float, busy: bool):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert machine_is_busy() is busy
