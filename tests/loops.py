"""One short training, as a Trainer runs it and as a plain loop runs it, with the same batches."""

import pytest
import torch
from models import adamw, batch, lora_bert, samples, training_arguments
from transformers import Trainer

from weightlora import WeightLora, WeightLoraConfig

LR = 1e-2
STEPS = 6
CREDIT = {"keep": 3, "select_steps": 4}
GATES = {"keep": 3, "select_steps": 4, "selection": "stoiht"}
RULES = {
    "credit": CREDIT,
    "gates": GATES,
    "gates under the schedule": GATES | {"omega_follows_lr": True, "threshold_every": 2, "constraint": "simplex"},
    "chance": CREDIT | {"selection": "random", "seed": 3},
    "credit, two rounds, growing": CREDIT | {"rounds": 2, "expand": "random"},
}


def make_trainer(directory, model, *callbacks, kind=Trainer, weightlora=None, model_init=None, **settings) -> Trainer:
    """A Trainer of `kind`. `settings` are training arguments; `weightlora` is for our own Trainer."""
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "learning_rate": LR,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
    } | settings
    extra = {} if weightlora is None else {"weightlora": weightlora}
    run = kind(
        model,
        training_arguments(directory, **settings),
        train_dataset=samples(),
        eval_dataset=samples(8),
        callbacks=list(callbacks),
        model_init=model_init,
        **extra,
    )
    run.model_accepts_loss_kwargs = False  # BERT takes them but averages over the micro-batch all the same
    return run


def by_hand(config: WeightLoraConfig) -> WeightLora:
    """The same training as a plain loop."""
    model = lora_bert()
    optimizer = adamw(model, LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    selector = WeightLora(model, optimizer, config)
    for step in range(STEPS):
        model(**batch(step)).loss.backward()
        optimizer.step()
        selector.step()
        schedule.step()
        optimizer.zero_grad()
    return selector


def assert_same_history(one: WeightLora, other: WeightLora, rtol: float) -> None:
    assert len(one.history) == len(other.history)
    for mine, theirs in zip(one.history, other.history, strict=True):
        numbers = [key for key in mine if key in ("omega", "score")]
        assert {key: mine[key] for key in mine if key not in numbers} == {
            key: theirs[key] for key in theirs if key not in numbers
        }
        for key in numbers:
            assert mine[key] == pytest.approx(theirs[key], rel=rtol, abs=1e-9)
