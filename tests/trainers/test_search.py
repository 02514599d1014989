"""Hyperparameter search: each trial builds its model anew, and the callback begins anew with it."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import transformers.integrations
import transformers.trainer
from loops import CREDIT, make_trainer
from models import lora_bert
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import BestRun, HPSearchBackend

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.state import STATE_FILE


class Search:
    """Stands for Optuna: the calls that Trainer's own backend makes, in their order."""

    objectives: ClassVar[list[float]] = []

    @staticmethod
    def ensure_available():
        pass

    @staticmethod
    def default_hp_space(trial):
        return trial.params

    def run(self, trainer, n_trials, direction, **kwargs):
        for number in range(n_trials):
            trainer.objective = None
            trainer.train(trial=SimpleNamespace(number=number, params={"learning_rate": 10.0 ** -(2 + number)}))
            self.objectives.append(trainer.compute_objective(trainer.evaluate()))
        return BestRun("0", min(self.objectives), {}, None)


@pytest.fixture
def search(monkeypatch):
    monkeypatch.setitem(transformers.trainer.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, Search)
    monkeypatch.setattr(transformers.integrations, "hp_params", lambda trial: trial.params)
    monkeypatch.setattr(Search, "objectives", [])
    return Search


@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
def test_every_trial_chooses_anew_and_is_judged_by_its_loss(tmp_path, search, kind):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(
        tmp_path, None, callback, kind=kind, model_init=lambda: lora_bert(), save_strategy="steps", save_steps=6
    )
    best = run.hyperparameter_search(n_trials=3, backend="optuna")
    assert len(set(search.objectives)) == 3, "774.0 for every trial, when our numbers were in the sum"
    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert search.objectives[-1] == losses[-1] and best.objective == min(search.objectives)
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert callback.selector.step_count == 4 and len(callback.selector.kept) == 3
    states = sorted(path.parent.parent.name for path in tmp_path.rglob(STATE_FILE))
    assert states == ["run-0", "run-1", "run-2"], "beside the checkpoint of each trial"


def test_a_trial_after_one_that_was_cut_short_chooses_anew_where_batch_sizes_are_searched_too(tmp_path):
    class Pruned(Exception):
        pass

    class Prune(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3 and not pruned:
                pruned.append(state.global_step)
                raise Pruned

    pruned: list[int] = []
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(
        tmp_path,
        None,
        callback,
        Prune(),
        model_init=lambda: lora_bert(),
        auto_find_batch_size=True,
        save_strategy="no",
    )
    with pytest.raises(Pruned):
        run.train()
    run.train()
    assert [entry["step"] for entry in callback.selector.history] == [1, 2, 3, 4, 4], "its own evidence alone"
