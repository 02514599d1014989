"""The probe inside a trainer: the first batches of its training set, in its own collation and precision.

Training sees these batches again, in the order that it would have had without a probe.
"""

import contextlib
import inspect
from collections.abc import Iterator
from itertools import islice
from types import CodeType
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..loaders import read_once, same_batches
from ..restoring import same_buffers, same_fields, same_random_numbers
from ..selector import WeightLora

LIBRARIES = {"accelerate", "builtins", "datasets", "deepspeed", "peft", "torch", "transformers", "trl"}
"""Their objects do not count batches."""

KEPT_ELSEWHERE = {
    *("model", "model_wrapped", "deepspeed"),  # by `undisturbed`
    *("train_dataset", "eval_dataset", "data_collator", "processing_class"),  # by `same_batches`
}
"""Attributes of a Trainer that are put back elsewhere."""


def _wish(selector: WeightLora) -> tuple[str, str]:
    """The setting that needs batches before training, and what to do where there are none."""
    resource = selector.config.resource
    if selector.limit is not None and selector.limit.costs is None:
        return f"keep_{resource}", f"choose by keep, or by keep_parameters, and leave keep_{resource} out"
    return f"selection={selector.config.selection!r}", "set selection='credit'"


def probe_in_trainer(selector: WeightLora, trainer: Any, loader: Any) -> None:
    """Let the selector look at the first batches of a `transformers.Trainer`, to choose or to measure.

    Args:
        selector: It needs a probe.
        trainer: The Trainer that is about to train; None if it is unknown.
        loader: Its data loader.

    Raises:
        ConfigError: If the batches cannot be read before training.
    """
    from transformers import Trainer  # late, because it imports much more than callbacks need

    setting, remedy = _wish(selector)
    if trainer is None:
        raise ConfigError(f"{setting} needs a transformers.Trainer, and none is training here: {remedy}.")
    if type(trainer)._prepare_inputs is not Trainer._prepare_inputs:
        name = type(trainer).__name__
        raise ConfigError(f"{name} overrides _prepare_inputs, which may make its batches while it trains: {remedy}.")
    if type(trainer).compute_loss is Trainer.compute_loss and not _calls_compute_loss(trainer, Trainer):
        raise ConfigError(
            f"{type(trainer).__name__}.training_step does not call compute_loss, which gives {setting} its loss: "
            f"{remedy}, or override compute_loss instead."
        )
    if selector.limit is not None:
        selector.limit.check_not_compiled(trainer.model_wrapped)

    steps = _Steps(loader, trainer.args.gradient_accumulation_steps)

    def loss(batch: _InStep) -> Tensor:
        trainer.model.train()  # as each training step does
        # A loss may divide by the number of items in all batches of its step.
        batches, items = trainer.get_batch_samples(iter(batch.step), len(batch.step), trainer.args.device)
        inputs = trainer._prepare_inputs(batches[batch.place])
        with trainer.compute_loss_context_manager():
            # DeepSpeed's engine would take the pass for one of the training.
            model = trainer.model if trainer.is_deepspeed_enabled else trainer.model_wrapped
            found: Tensor = trainer.compute_loss(model, inputs, num_items_in_batch=items)
        return found.mean() if trainer.args.n_gpu > 1 else found  # DataParallel: one for each GPU

    _check_can_be_read_again(selector, loader)
    held = _held_by(trainer)
    modules = nn.ModuleList(one for one in held if isinstance(one, nn.Module))
    notes = [trainer, trainer.state, trainer.control, *_metrics_in(modules)]
    notes += [one for one in held if type(one).__module__.partition(".")[0] not in LIBRARIES]
    with same_fields(notes), same_buffers(modules), _without(trainer, "log"):
        selector.look(steps, loss, selector.config.probe_batches * steps.length)
    selector.advance()  # outside of what is put back, because adapters leave now


class _InStep(tuple[Any]):  # in which `tensors_in` finds those of the batch
    """A batch alone, which knows all batches of its optimizer step, and its place among them."""

    step: list[Any]
    place: int


class _Steps:
    """Reads a loader step by step: with gradient accumulation, `length` batches at a time."""

    def __init__(self, loader: Any, length: int) -> None:
        self.base_dataloader, self.length = loader, length  # by this name, `same_batches` finds the loader

    def __iter__(self) -> Iterator[_InStep]:
        own = iter(self.base_dataloader)
        while step := list(islice(own, self.length)):
            for place, batch in enumerate(step):
                one = _InStep((batch,))
                one.step, one.place = step, place
                yield one


def _calls_compute_loss(trainer: Any, library: type) -> bool:
    """Whether a Trainer's training step ends in its `compute_loss`: directly, by a method, or by a step above it."""
    kind, own = type(trainer), {name: getattr(one, "__func__", one) for name, one in vars(trainer).items()}
    above = [own, *(vars(one) for one in kind.__mro__[: kind.__mro__.index(library)])]
    for step in (names["training_step"] for names in above if "training_step" in names):
        names = _names_from(step, above)
        if "compute_loss" in names or not inspect.isfunction(step):  # what is no function cannot be looked into
            return True
        if "training_step" not in names:  # it replaces those above
            return False
    return True


def _names_from(function: Any, above: list[Any]) -> set[str]:
    """The names in a function, in what it decorates, and in the methods of these classes that it uses."""
    names: set[str] = set()
    seen, new = [], [function]
    while new := [one for one in new if inspect.isfunction(one) and one not in seen]:
        seen += new
        found = set().union(*(_names_in(one.__code__) for one in new)) - names
        names |= found
        cells = [cell.cell_contents for one in new for cell in one.__closure__ or ()]
        decorated = [getattr(one, "__func__", one) for one in cells]
        new = decorated + [own[name] for own in above for name in found - {"training_step"} if name in own]
    return names


def _names_in(code: CodeType) -> set[str]:
    """The attributes and globals that a function uses, and the functions in it."""
    inner = [_names_in(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _held_by(trainer: Any) -> list[Any]:
    """The objects that are attributes of a Trainer, or in a dictionary that is one, without its model and its data.

    Meters, metrics, and a loss that averages are among them: they count every batch.
    """
    held = [value for name, value in vars(trainer).items() if name not in KEPT_ELSEWHERE]
    flat = [one for value in held for one in (value.values() if isinstance(value, dict) else [value])]
    return [one for one in flat if isinstance(getattr(one, "__dict__", None), dict)]


def probe_in_lightning(selector: WeightLora, trainer: Any, module: Any) -> None:
    """Let the selector look at the first batches of a Lightning Trainer, to choose or to measure.

    Args:
        selector: It needs a probe.
        trainer: The Trainer that is about to train.
        module: Its LightningModule.

    Raises:
        ConfigError: If the batches cannot be read before training or come from several loaders, or the module takes
            them from the loader or steps its optimizers itself.
    """
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature  # an extra

    if not module.automatic_optimization:
        raise ConfigError(
            f"{type(module).__name__} optimizes manually, so its training_step has no loss: {_wish(selector)[1]}."
        )
    if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):  # takes any number of them
        raise ConfigError(
            f"training_step(dataloader_iter) of {type(module).__name__} takes its batches from the loader itself, so "
            f"it gives no loss for one batch: {_wish(selector)[1]}."
        )
    loader = trainer.train_dataloader
    if isinstance(loader, (dict, list, tuple)):
        setting, remedy = _wish(selector)
        raise ConfigError(
            f"the training set is a {type(loader).__name__} of {len(loader)} data loaders, and {setting} reads the "
            f"batches of one: {remedy}."
        )

    # As Lightning's loop calls it: the number of the batch is optional.
    number = (0,) if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2) else ()

    def loss(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.strategy.batch_to_device(module._on_before_batch_transfer(batch))
        found = trainer.strategy.training_step(batch, *number)
        return found.get("loss") if isinstance(found, dict) else found

    _check_can_be_read_again(selector, loader)
    try:
        # Around all of it, because backward reads what the forward pass left.
        notes = [module, *_metrics_in(module)]
        with same_fields(notes), same_buffers(module), _without(module, "log", "log_dict"):
            selector.look(loader, loss, selector.config.probe_batches * trainer.accumulate_grad_batches)
    finally:
        module.zero_grad(set_to_none=True)
    selector.advance()  # outside of what is put back, because adapters leave now


def _check_can_be_read_again(selector: WeightLora, loader: Any) -> None:
    with same_random_numbers(selector.model), same_batches(loader):  # __iter__ may shuffle, or count an epoch
        once = read_once(loader)
    if once is not None:
        setting, remedy = _wish(selector)
        raise ConfigError(
            f"the training data comes from a {type(once).__name__}, which can be read only once, and {setting} reads "
            f"the first batches before training does: {remedy}."
        )


def _metrics_in(module: nn.Module) -> list[nn.Module]:
    """The torchmetrics in a module, and collections of them, which note the batches that they have seen."""
    return [one for one in module.modules() if hasattr(one, "metric_state")]


@contextlib.contextmanager
def _without(thing: Any, *methods: str) -> Iterator[None]:
    """Inside, these methods of an object do nothing."""
    before = {name: vars(thing)[name] for name in methods if name in vars(thing)}
    for name in methods:
        vars(thing)[name] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for name in methods:
            del vars(thing)[name]
        vars(thing).update(before)
