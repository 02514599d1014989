"""Short trainings on tiny models, for the tests of resuming: what to run, what it ends in."""

import torch
from models import lora_bert, samples, train, training_arguments
from selections import start
from transformers import TrainerCallback

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer

STEPS = 8
ROUNDS = {"keep": 3, "select_steps": 6, "rounds": 2, "expand": "qr"}
LOOP = ROUNDS | {"select_steps": 4}


def run_loop(steps):
    """The model and the selector after so many steps of a plain loop."""
    model, optimizer, selector = start(**LOOP)
    train(model, optimizer, selector, steps=steps)
    return model, selector


def build(directory, settings, *callbacks, kind=WeightLoraTrainer, model=None, **arguments):
    """A Trainer with dropout and a shuffled data set, which saves at every step."""
    usual = {"per_device_train_batch_size": 4, "max_steps": STEPS, "warmup_steps": 2, "save_steps": 1}
    arguments = training_arguments(directory, **usual | arguments)
    rows = samples(24)
    callbacks = [*callbacks, WeightLoraCallback(WeightLoraConfig(**settings))]
    model = lora_bert(dropout=0.1) if model is None else model
    return kind(model, arguments, train_dataset=rows, eval_dataset=rows[:8], callbacks=callbacks)


def callback_of(trainer):
    """The callback of the selection, in a Trainer of any class. None if there is none."""
    return next((one for one in trainer.callback_handler.callbacks if isinstance(one, WeightLoraCallback)), None)


def outcome(trainer):
    """The state of the selection, or None without one; all weights; and all losses."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    callback = callback_of(trainer)
    return callback and callback.selector.state_dict(), trainer.model.state_dict(), losses


def same(one, other):
    """Bit for bit."""
    assert one[0] == other[0], "kept, scores, gates, ranks, history"
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name
    assert one[2] == other[2], "every loss of the log"


class At(TrainerCallback):
    """Calls a function at the end of one step, before the selection's own callback."""

    def __init__(self, step, call):
        self.step, self.call = step, call

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.call(control=control, **kwargs)


class Count(TrainerCallback):
    """Lists the steps that are made."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)
