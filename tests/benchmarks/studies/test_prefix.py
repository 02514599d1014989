"""The study on a tiny BERT: the same losses, the bytes of all tokens, and a run that goes on after SIGKILL."""

import pickle
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
from benchmarks.studies import prefix
from benchmarks.studies.prefix import Task, kill_and_go_on, measure_epochs, ratios, render_prefix_markdown
from prefixes import examples, upper_bert
from processes import fork_server


def tiny(dropout: float = 0.1) -> Task:
    rows = [row.tolist() for row in examples()]
    return Task(upper_bert(dropout=dropout), rows, [row[0] % 2 for row in rows], batch_size=4)


def test_epochs_side_by_side(tmp_path):
    found = measure_epochs(tiny(), 2, 3, tmp_path)
    assert (found["fills"], found["reads"], found["steps"]) == (3, 6, 9)
    assert found["bytes"] == found["tokens"] * 64 == sum(map(len, examples())) * 64
    assert found["largest_loss_difference"] < 1e-5
    assert found["final_losses"]["cached"] == pytest.approx(found["final_losses"]["without_dropout_below"], abs=1e-5)
    assert abs(found["final_losses"]["usual"] - found["final_losses"]["cached"]) > 1e-5, "dropout makes a difference"
    assert {len(times) for times in found["processor_seconds"].values()} == {3}
    with pytest.raises(ValueError, match="the model is cut at block 2, not 1"):
        measure_epochs(tiny(), 1, 1, tmp_path / "wrong")


def test_ratios_are_those_of_the_same_epoch_and_the_table_has_their_median():
    times = {
        "usual": [4.0, 4.0, 8.0, 2.0],
        "without_dropout_below": [2.0, 4.0, 8.0, 2.0],
        "cached": [3.0, 2.0, 2.0, 2.0],
    }
    figures = {"processor_seconds": times, "wall_seconds": times, "steps": 40, "bytes": 5_600_000, "tokens": 1234}
    assert ratios(figures, "wall", "without_dropout_below") == [1.5, 0.5, 0.25, 1.0]
    settings = {"model": "M", "texts": 320, "epochs": 4, "first_block": 3, "blocks": 6}
    killed = {"killed_after_steps": 5, "first_epoch_after": {"reads": 6, "fills": 4}, "largest_loss_difference": 2e-7}
    machine = {"device": "cpu", "capability": "AVX2"}
    study = {"settings": settings, "killed": killed, "machine": machine}
    text = render_prefix_markdown(study | {"epochs": figures | {"largest_loss_difference": 1.3e-6}})
    assert "| processor time, without dropout there | 1.50 | 0.50 (0.25 to 1.00) |" in " ".join(text.split("\n"))
    assert "5.6 MB for 1,234 tokens" in text and "read 6 steps of its first epoch, computed the other 4" in text


class Process:
    """The part of `multiprocessing.Process` that the study uses, in a fork of a process that has made the imports."""

    def __init__(self, target: Callable, args: tuple) -> None:
        self.work = pickle.dumps((target, args)).hex()

    def start(self) -> None:
        code = "import pickle, sys; target, args = pickle.loads(bytes.fromhex(sys.stdin.read())); target(*args)"
        self.exitcode = fork_server().run("-c", code, input=self.work).returncode

    def join(self) -> None:
        """It has ended."""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix.multiprocessing, "get_context", lambda method: SimpleNamespace(Process=Process))
    found = kill_and_go_on(partial(tiny), 2, 2, tmp_path)
    assert found["exit_code"] == -9 and found["first_epoch_after"] == {"fills": 1, "reads": 2}
    assert found["bytes_found"] > 0 and found["largest_loss_difference"] < 1e-5
