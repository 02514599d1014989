"""The probe: backward passes over a few batches before training, after which everything but the evidence is as before.

Activations are recomputed in the backward pass where the model can do that, so that a machine which has room to train
the chosen adapters has room to choose them.
"""

import contextlib
import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from itertools import islice
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from .adapters import LoraAdapter, base_model_of
from .engines import Engine
from .engines.processes import together
from .errors import ConfigError, DataError, ModelError, TrainingError
from .gradients import Average
from .loaders import same_batches
from .recompute import recomputed
from .restoring import no_steps_in_backward, same_buffers, same_fields, same_modes, same_random_numbers
from .rules import Rule, check_finite
from .tensors import leaves_of, local, tensors_in, unchanged_weights
from .values import check_int, plain

SCALE = 1024.0
"""Gradients are computed this many times as large: exact in binary, and float16 does not lose the small ones."""

Loss = Callable[[Any], Tensor]
"""Maps a batch to its loss, a scalar."""


def check_fresh(adapters: list[LoraAdapter]) -> None:
    """Raise a `ModelError` if an adapter has no weights, or an update other than 0: its A and B both differ from 0."""
    for adapter in adapters:
        if any(factor.is_meta for factor in adapter.factors):
            raise ModelError(
                f"adapter {adapter.name!r} is on the meta device, without weights: load them, or leave "
                "low_cpu_mem_usage=True out of get_peft_model()."
            )
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
            f"selection={rule.name!r} chooses while training: leave probe() out, and call step() after "
            "each optimizer step."
        )
    check_fresh(adapters)
    # Users' hooks, which may clip, must see the gradients of training. A hook may be on one process alone, such as one
    # that logs, and all processes must scale alike.
    hooked = any(p._backward_hooks for a in adapters for p in a.parameters)
    scale = 1.0 if float(engine.average(torch.tensor(float(hooked), device="cpu"))) else SCALE
    first: list[Tensor] = []
    done, remedy = 0, "give batches with labels, or probe(batches, loss=...) with a function from a batch to its loss"
    with undisturbed(model, loss) as loss_of, same_batches(batches):
        # A compiled model would be compiled for adapters that are about to leave it, and hide modules from the rule.
        with torch.compiler.set_stance("force_eager"), rule.watching(engine.average):
            for done, batch in enumerate(_in_step(batches, number, engine.average), start=1):
                where = f"batch {done} of the probe"
                first = first if done > 1 else copies_of(batch)
                with together(where):
                    found = check_loss(loss_of(batch), where, remedy) * scale
                engine.backward(found)
                del found  # or it outlives the batch
            if not done:
                raise DataError("the probe got no batch, so there is nothing to choose by: give it at least one.")
        taken = rule.take(scale * done)
        assert taken is not None  # the gradients are there
        evidence = engine.average(taken)
    check_read_again(model, batches, first)
    if done < number:
        warnings.warn(
            f"the probe got {done} of the {number} batches that it reads: the choice is made from these.", stacklevel=4
        )
    check_finite(evidence, adapters, "the probe: check the data, and the model's precision")
    if not bool(evidence.any()):
        raise TrainingError(
            "all gradients of the adapters are 0 in the probe: the loss does not depend on them. Either the model "
            "does not run these modules, or a head above them is 0 (give it random weights), or float16 is too coarse "
            "(take bfloat16), or gradient checkpointing is reentrant (set use_reentrant=False)."
        )
    rule.update(evidence, done, lambda score: score > 0)


def copies_of(batch: Any) -> list[Tensor]:
    """Copies of the tensors in a batch, on the CPU."""
    plain = (tensor for tensor in tensors_in(batch) if tensor.layout is torch.strided)
    return [tensor.detach().to("cpu", copy=True) for tensor in plain]


def check_read_again(model: nn.Module, batches: Any, first: list[Tensor]) -> None:
    """Read the first batch again, as training will, and warn if it is another one.

    Args:
        model: Random numbers on its devices are put back, too.
        batches: What was read, and is as before. Nothing is known of an iterator, and a list stays what it is.
        first: What `copies_of` gave for its first batch.

    Raises:
        DataError: There is no batch any more.
    """
    if isinstance(batches, Iterator | list | tuple):
        return
    remedy = "let it start from the beginning in __iter__, probe other data, or choose while training (select_steps)"
    with same_random_numbers(model), same_batches(batches), together("reading the first batch again"):
        again = next(iter(batches), None)
        if again is None:
            raise DataError(f"the data can be read only once, and nothing is left for the training: {remedy}.")
    found = copies_of(again)
    if len(found) != len(first) or not all(map(_are_same, found, first)):
        warnings.warn(
            "the first batch is another one when the data is read again. Either the data can be read only once, and "
            f"the training misses what the probe read: {remedy}. Or it draws random numbers that cannot be put back, "
            "such as those of a generator in a function: then the training is valid, but not the same as without a "
            "probe.",
            stacklevel=5,
        )


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values, of which some may be NaN, such as labels that are missing."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def number_to_read(batches: Any, steps: int, per_step: int) -> int:
    """How many batches the probe reads, for so many steps.

    Raises:
        ConfigError: `per_step` is no number of batches.
        DataError: There are no several batches.
    """
    check_int("per_step", per_step := plain(per_step), 1)
    if hasattr(batches, "keys") or not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise DataError(
            f"the probe got a {type(batches).__name__}, and reads several batches: give a data loader, or a list of "
            "batches."
        )
    return steps * per_step


def _in_step(batches: Iterable[Any], number: int, average: Average) -> Iterator[Any]:
    """The first batches, as long as every process has one: in DDP and FSDP, a pass of one waits for all others."""
    own = iter(batches)
    for batch in range(1, number + 1):
        with together(f"reading batch {batch} of the probe"):
            found = list(islice(own, 1))
        if float(average(torch.tensor(float(len(found)), dtype=torch.float64, device="cpu"))) < 1:
            return
        yield found.pop()


def check_loss(value: Any, batch: str, remedy: str) -> Tensor:
    """A loss that can be differentiated.

    Args:
        value: What the model gave.
        batch: Names the batch, for the messages.
        remedy: What to do if it gave no loss.

    Raises:
        DataError: It is no loss.
        TrainingError: It is NaN or infinite.
    """
    if torch.is_tensor(value) and not value.requires_grad:
        raise DataError(
            f"{batch} gave a loss without a gradient: compute it from the model's outputs, without torch.no_grad(), "
            "inference_mode() and detach(), and set use_reentrant=False if you use gradient checkpointing."
        )
    if not torch.is_tensor(value):
        raise DataError(f"{batch} gave no loss to differentiate ({type(value).__name__}): {remedy}.")
    if value.numel() != 1:
        raise DataError(f"{batch} gave a loss of shape {tuple(value.shape)}, and a scalar is needed: give its mean.")
    if not bool(value.isfinite().all()):
        raise TrainingError(f"the loss of {batch} is {value.item()}: check the data.")
    return value


def own_loss(model: nn.Module, batch: Any) -> Any:
    """The `loss` in what a model gives for a batch of named tensors, which move to its device; None if it has none.

    Raises:
        DataError: If the batch is no mapping.
    """
    if not hasattr(batch, "keys"):
        raise DataError(
            f"a batch is a {type(batch).__name__}: give mappings from the names of the model's inputs to tensors."
        )
    inputs = send_to_device(dict(batch), next(model.parameters()).device)
    return getattr(model(**inputs), "loss", None)


@contextlib.contextmanager
def _sparing(model: nn.Module, loss: Loss) -> Iterator[Loss]:
    """Gives the loss to use inside. It spares batches, and afterwards what it trains outside of the model.

    A batch may be read again, so the loss may take entries out of a copy (`batch.pop("labels")`). What is trained
    outside has the gradients of before.
    """
    own = {id(parameter) for parameter in model.parameters()}
    before: list[tuple[weakref.ref[Tensor], Tensor | None]] = []  # a leaf may be an activation, which must not be kept

    def spares(batch: Any) -> Any:
        value = loss(copy.copy(batch) if isinstance(batch, MutableMapping | list) else batch)
        for leaf in leaves_of(value):
            if id(leaf) not in own and not any(seen() is leaf for seen, _ in before):
                before.append((weakref.ref(leaf), leaf.grad))
                leaf.grad = None
        return value

    try:
        yield spares
    finally:
        for seen, gradient in before:
            if (leaf := seen()) is not None:
                leaf.grad = gradient


def _trains(model: nn.Module) -> bool:
    """Whether the modules that hold adapters are in training mode. In a model that was just loaded, they are not.

    If so, modules in evaluation mode are there by the user's wish, such as frozen batch norms.
    """
    holders = [m for m in base_model_of(model).modules() if any(isinstance(c, BaseTunerLayer) for c in m.children())]
    return all(holder.training for holder in holders)


@contextlib.contextmanager
def undisturbed(model: nn.Module, loss: Loss | None = None, recompute: bool = True) -> Iterator[Loss]:
    """Inside, the model trains, and recomputes activations if it can; afterwards all but `.grad` is as before.

    That is: which modules train, their buffers and other attributes (running statistics, how far positions were
    computed, or the state of a recurrence), and the random numbers that come next. A loss with weights of its own gets
    their gradients back, too, along which the first optimizer step would move them.

    A model that trains already keeps its modes: users freeze batch norms by evaluation mode. No optimizer steps
    inside, also not one that hooks step in the backward pass.

    Args:
        model: Loses its gradients before and after.
        loss: From a batch to its loss. `None` uses `model(**batch).loss`.
        recompute: Off, activations are kept as the model keeps them.

    Yields:
        The loss to use inside.

    Raises:
        ModelError: A pass changed a weight.
    """
    model.zero_grad(set_to_none=True)  # of a trial step, under any loss scale: they would count as evidence
    remembers = recomputed(model) if recompute else contextlib.nullcontext()
    try:
        with (
            same_modes(model),
            same_fields(base_model_of(model).modules()),
            same_buffers(model),
            unchanged_weights(model),
            no_steps_in_backward(model),
            same_random_numbers(model),
            remembers,
            _sparing(model, loss or (lambda batch: own_loss(model, batch))) as spares,
        ):
            if not _trains(model):
                model.train()
            yield spares
    finally:
        model.zero_grad(set_to_none=True)
