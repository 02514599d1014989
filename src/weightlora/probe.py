"""The probe: backward passes over a few batches before training, after which everything but the evidence is as before.

Activations are recomputed in the backward pass where the model can do that, so that a machine which has room to train
the chosen adapters has room to choose them.
"""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .adapters import LoraAdapter, base_model_of
from .engines import Engine
from .errors import ConfigError, DataError, ModelError, TrainingError
from .rules import Rule, check_finite
from .tensors import local

SCALE = 1024.0
"""Gradients are computed this many times as large: exact in binary, and float16 does not lose the small ones."""

Loss = Callable[[Any], Tensor]
"""Maps a batch to its loss, a scalar."""


def check_fresh(adapters: list[LoraAdapter]) -> None:
    """Raise a `ModelError` if the update of an adapter is not 0: its A and its B both differ from 0."""
    for adapter in adapters:
        if all(bool(local(factor).any()) for factor in adapter.factors):
            raise ModelError(
                f"adapter {adapter.name!r} does not start from 0, because it was trained or initialized so, and the "
                "probe reads the gradients of fresh adapters: probe a new PEFT model, or set selection='credit'."
            )


def gather(
    model: nn.Module,
    adapters: list[LoraAdapter],
    rule: Rule,
    engine: Engine,
    batches: Iterable[Any],
    loss: Loss | None,
    number: int,
) -> None:
    """Give a rule that probes its evidence: the gradients of a few batches.

    Raises:
        WeightLoraError: If the rule does not probe, the adapters are trained already, or there is no evidence.
    """
    if not rule.probes:
        raise ConfigError(
            f"selection={rule.name!r} finds its evidence while training: leave probe() out, and call step() after "
            "each optimizer step."
        )
    check_fresh(adapters)
    with undisturbed(model):
        done = backward(model, batches, loss, number, engine.backward)
        taken = rule.take(SCALE * done)
        assert taken is not None  # the gradients are there
        evidence = engine.average(taken)
    check_finite(evidence, adapters, "the probe: check the data, and the model's precision")
    if not bool(evidence.any()):
        raise TrainingError(
            "all gradients of the adapters are 0 in the probe: the loss does not depend on them, or float16 is too "
            "coarse for it."
        )
    rule.update(evidence, done, lambda score: score > 0)


def backward(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None,
    number: int,
    add_up: Callable[[Tensor], None] = Tensor.backward,
) -> int:
    """One backward pass after another; the gradients add up. Returns how many batches there were.

    Args:
        model: Has no gradients yet.
        batches: Of which the first `number` are used.
        loss: None calls the model with the batch, which then is a mapping with labels.
        number: How many batches.
        add_up: Adds the gradients of a loss to those that are there.

    Raises:
        DataError: There is no batch, or a batch gives no loss.
        TrainingError: A loss is NaN or infinite.
    """
    loss, done = loss or (lambda batch: _own_loss(model, batch)), 0
    for done, batch in enumerate(islice(batches, number), start=1):
        value = loss(batch)
        if not torch.is_tensor(value) or not value.requires_grad:
            raise DataError(
                f"batch {done} of the probe gave no loss to differentiate ({type(value).__name__}): give batches with "
                "labels, or probe(batches, loss=...) with a function from a batch to its loss."
            )
        if not bool(value.isfinite().all()):
            raise TrainingError(f"the loss of batch {done} of the probe is {float(value)}: check the data.")
        add_up(value * SCALE)
    if not done:
        raise DataError("the probe got no batch, so there is nothing to choose by: give it at least one.")
    return done


def _own_loss(model: nn.Module, batch: Any) -> Any:
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if torch.is_tensor(value) else value for name, value in dict(batch).items()}
    return getattr(model(**inputs), "loss", None)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model trains, and recomputes activations if it can; afterwards all but `.grad` is as before.

    That is: which modules train, the running statistics of norms, and the random numbers that come next.
    """
    training = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    numbers = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), _recomputed(base_model_of(model)):
            model.train()
            yield
    finally:
        model.zero_grad(set_to_none=True)
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])
        for module, trains in training:
            module.training = trains
        for buffer, before in buffers:
            buffer.copy_(before)


@contextlib.contextmanager
def _recomputed(base: Any) -> Iterator[None]:
    """Activation checkpointing by the model's own means, unless it has none, or it is on."""
    on = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if on or not getattr(base, "supports_gradient_checkpointing", False):
        yield
        return
    name = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    hooks = [(module, dict(module._forward_hooks)) for module in base.modules()]
    getattr(base, f"{name}_checkpointing_enable")(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})
    try:
        yield
    finally:
        getattr(base, f"{name}_checkpointing_disable")()
        for module, before in hooks:  # Transformers leaves one behind, which makes backward go on to the embeddings
            module._forward_hooks.clear()
            module._forward_hooks.update(before)
