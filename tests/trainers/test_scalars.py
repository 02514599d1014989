"""Where the selection's numbers go: into every log and every integration, and into no returned metric."""

from typing import ClassVar

import pytest
from loops import CREDIT, GATES, STEPS, make_trainer
from models import lora_bert
from transformers import Trainer, TrainerCallback
from transformers.integrations import integration_utils
from transformers.trainer_utils import default_compute_objective

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters

KINDS = {"the callback in a plain Trainer": Trainer, "our Trainer": WeightLoraTrainer}
NUMBERS = {"weightlora/active_adapters", "weightlora/trainable_parameters"}


class Board(TrainerCallback):
    """Stands for TensorBoard or W&B: copies each log entry that it is given."""

    entries: ClassVar[list[dict]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.entries.append(dict(logs))


@pytest.fixture
def board(monkeypatch):
    """An integration that `report_to` knows, so that Trainer puts it before the user's callbacks."""
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "board", Board)
    monkeypatch.setattr(Board, "entries", [])
    return Board


@pytest.mark.parametrize("late", [False, True], ids=["at construction", "by add_callback"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_integration_is_given_our_numbers(tmp_path, board, kind, late):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), *([] if late else [callback]), kind=kind, report_to=["board"])
    if late:
        run.add_callback(callback)
    run.train()
    entries = [entry for entry in board.entries if "loss" in entry]
    assert [entry["weightlora/active_adapters"] for entry in entries] == [12] * 3 + [3] * 3
    assert all(entry.keys() >= NUMBERS for entry in board.entries), "the summary of the run, too"


def test_an_integration_is_given_nothing_of_ours_once_the_callback_is_removed(tmp_path, board):
    run = make_trainer(
        tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)), report_to=["board"], logging_steps=3
    )
    run.train()
    run.remove_callback(WeightLoraCallback)
    board.entries.clear()
    run.evaluate()
    assert len(board.entries) == 1 and not any(key.startswith("weightlora/") for key in board.entries[0])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_metrics_that_evaluate_returns_are_trainers_own(tmp_path, kind):
    """A hyperparameter search adds up what it finds there."""
    seen = []

    class Evaluated(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            seen.append(dict(metrics))

    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), Evaluated(), callback, kind=kind)
    plain = make_trainer(tmp_path, lora_bert())
    output, expected = run.train(), plain.train()
    metrics = run.evaluate()
    assert metrics.keys() == plain.evaluate().keys() == seen[-1].keys()
    assert default_compute_objective(metrics) == metrics["eval_loss"]
    assert output.metrics.keys() == expected.metrics.keys()
    assert run.state.log_history[-1].keys() >= NUMBERS, "the log has them"


def test_log_entries_hold_our_numbers(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**GATES))
    run = make_trainer(tmp_path, lora_bert(), callback)
    n = sum(a.size for a in find_adapters(run.model))
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    history = [entry for entry in callback.selector.history if "score" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0]["weightlora/active_adapters"] == 12
    assert [entry["weightlora/active_adapters"] for entry in entries[1:]] == [3] * 5
    left = sum(adapter.size for adapter in callback.selector.adapters)
    assert [entry["weightlora/trainable_parameters"] for entry in entries] == [n, n, n, left, left, left]
    for entry, past in zip(entries, [*history, history[-1], history[-1]], strict=True):
        gates = [gate for gate in past["omega"] if gate != 0]
        assert entry["weightlora/gate_min"] == min(gates)
        assert entry["weightlora/gate_max"] == max(gates)
        assert entry["weightlora/gate_mean"] == pytest.approx(sum(gates) / len(gates))
    assert run.state.log_history[-1]["weightlora/active_adapters"] == 3, "the summary of the run"
    assert len({entry["weightlora/gate_max"] for entry in entries}) > 2, "the gates must move, or this shows nothing"


@pytest.mark.parametrize("selection", ["credit", "random"])
def test_a_rule_without_gates_logs_none(tmp_path, selection):
    config = WeightLoraConfig(**CREDIT, selection=selection)
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(config))
    run.train()
    keys = {key for entry in run.state.log_history for key in entry if key.startswith("weightlora/")}
    assert keys == NUMBERS


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_evaluation_in_the_middle_changes_nothing(tmp_path, rule):
    """Bit for bit; and its own entries are logged with our numbers."""
    selectors = []
    for settings in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        callback = WeightLoraCallback(WeightLoraConfig(**rule))
        run = make_trainer(tmp_path, lora_bert(), callback, **settings)
        run.train()
        selectors.append(callback.selector)
    assert selectors[0].history == selectors[1].history
    evaluations = [entry for entry in run.state.log_history if "eval_loss" in entry]
    assert [entry["weightlora/active_adapters"] for entry in evaluations][3:] == [3, 3, 3]
    assert len(evaluations) == STEPS


def test_tensorboard_writes_our_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    make_trainer(tmp_path, lora_bert(), callback, report_to=["tensorboard"]).train()
    written = next(path.parent for path in tmp_path.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(written)).Reload()
    values = [event.value for event in events.Scalars("train/weightlora/active_adapters")]
    assert values[:STEPS] == [12] * 3 + [3] * 3
