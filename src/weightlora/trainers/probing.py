"""The probe inside a trainer: the first batches of its training set, in its own collation and precision.

Training sees these batches again, in the order that it would have had without a probe.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..selector import WeightLora


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
        raise ConfigError(f"{type(trainer).__name__} makes its batches while it trains: {remedy}.")
    if selector.limit is not None:
        selector.limit.check_not_compiled(trainer.model_wrapped)

    def loss(batch: Any) -> Tensor:
        inputs = trainer._prepare_inputs(batch)
        with trainer.compute_loss_context_manager():
            # DeepSpeed's engine would take the pass for one of the training.
            model = trainer.model if trainer.is_deepspeed_enabled else trainer.model_wrapped
            found: Tensor = trainer.compute_loss(model, inputs)
        return found

    _probe(selector, loader, loss)


def probe_in_lightning(selector: WeightLora, trainer: Any, module: nn.Module) -> None:
    """Let the selector look at the first batches of a Lightning Trainer, to choose or to measure.

    Args:
        selector: It needs a probe.
        trainer: The Trainer that is about to train.
        module: Its LightningModule.

    Raises:
        ConfigError: If the batches cannot be read before training, or the module steps its optimizers itself.
    """
    if not module.automatic_optimization:
        raise ConfigError(
            f"{type(module).__name__} optimizes manually, so its training_step has no loss: {_wish(selector)[1]}."
        )

    def loss(batch: Any) -> Any:
        found = trainer.strategy.training_step(trainer.strategy.batch_to_device(batch), 0)
        return found.get("loss") if isinstance(found, dict) else found

    try:
        with _without(module, "log", "log_dict"):
            _probe(selector, trainer.train_dataloader, loss)
    finally:
        module.zero_grad(set_to_none=True)


def _probe(selector: WeightLora, loader: Any, loss: Callable[[Any], Any]) -> None:
    data = getattr(loader, "dataset", loader)
    if isinstance(data, Iterator):
        setting, remedy = _wish(selector)
        raise ConfigError(
            f"the training set is a {type(data).__name__}, which can be read once only, and {setting} reads its first "
            f"batches before training does: {remedy}."
        )
    selector.probe(loader, loss)


@contextlib.contextmanager
def _without(thing: Any, *methods: str) -> Iterator[None]:
    """Inside, these methods of an object do nothing."""
    for name in methods:
        vars(thing)[name] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for name in methods:
            del vars(thing)[name]
