"""The selection inside Lightning's Trainer, and resuming from Lightning's checkpoints."""

from functools import partial
from math import inf
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import find_adapters
from ..checkpoint import bring_to_
from ..config import WeightLoraConfig
from ..errors import ConfigError, ModelError, StateError
from ..selector import WeightLora
from ..state import State, check_config
from .guest import Guest
from .probing import probe_in_lightning

NOT_BEGUN = {"begun": False}
"""The state before the first step, as in the checkpoints to which Lightning's tuners bring a module back."""

AVERAGES = tuple(
    getattr(callbacks, name)
    for name in ("StochasticWeightAveraging", "WeightAveraging")  # the second since Lightning 2.6
    if hasattr(callbacks, name)
)


class WeightLoraLightningCallback(Callback):
    """Chooses adapters of the PEFT model inside a LightningModule, before the first step or while it trains.

    Logs `weightlora/active_adapters` and `weightlora/trainable_parameters`, and with `selection="stoiht"` the minimum,
    mean and maximum of the gates. The selection's state is part of Lightning's checkpoints, and
    `trainer.fit(module, ckpt_path=...)` continues from it.

    Args:
        config: The settings.

    Attributes:
        selector: The `WeightLora`, from the start of training on.

    Raises:
        WeightLoraError: Before the first step, if the module has no LoRA adapters, or the settings, the strategy or
            the checkpoint do not fit.

    Example:
        ```python
        callback = WeightLoraLightningCallback(WeightLoraConfig(keep_parameters=0.25))
        lightning.pytorch.Trainer(max_steps=500, callbacks=[callback]).fit(module, loader)
        ```
    """

    def __init__(self, config: WeightLoraConfig | None = None) -> None:
        self._guest = Guest(config, rank_zero_info, "fit()", "trainer.callbacks.remove(callback)")
        self._saved: dict[str, Any] = {}
        self._begun = False

    @property
    def config(self) -> WeightLoraConfig:
        """The settings, as they were given."""
        return self._guest.config

    @property
    def selector(self) -> WeightLora | None:
        return self._guest.selector

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.strategy.restore_checkpoint_after_setup:
            raise ModelError(
                f"{type(trainer.strategy).__name__} fixes the layout of all parameters before training, so no adapter "
                "can leave: choose the adapters on one device or with strategy='ddp', and train the chosen ones here."
            )
        if stage == "fit" and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise ModelError(
                "this strategy trains in processes that start from this one, and the module here would keep all "
                "adapters: set strategy='ddp'."
            )
        if stage == "fit":
            _refuse_averages(trainer)
            self._saved, self._begun = {}, False

        # Lightning calls callbacks after it loaded the weights. That is too late: they fit other adapters.
        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            # one of weights alone (save_weights_only) may be tested: Lightning itself compares the names in it
            if stage == "fit" or self.state_key in checkpoint.get("callbacks", {}):
                self._restore_structure(pl_module, checkpoint)
            type(pl_module).on_load_checkpoint(pl_module, checkpoint)

        vars(pl_module)["on_load_checkpoint"] = on_load_checkpoint

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # which Lightning leaves out then

    def _restore_structure(self, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None:
            raise StateError(
                "this checkpoint holds no selection: resume from one that was saved with this callback, or without it."
            )
        if state == NOT_BEGUN:
            return
        parsed = State.from_dict(state)
        check_config(parsed, self.config)
        model = _peft_model_of(pl_module)
        bring_to_(model, find_adapters(model, self.config.adapter_name), parsed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = _peft_model_of(pl_module)
        optimizer = _optimizer_of(trainer, find_adapters(model, self.config.adapter_name)[0].parameters)
        saved, self._saved = self._saved, {}
        run_dir = trainer.logger.log_dir if trainer.logger is not None else None
        probe = partial(probe_in_lightning, trainer=trainer, module=pl_module)
        steps = trainer.estimated_stepping_batches
        steps = inf if steps < 0 else steps  # -1: so many epochs of a stream whose length is not known
        self._guest.begin(model, optimizer, steps, saved or None, run_dir, probe)
        self._begun = True
        # on_train_batch_end comes after the LR schedule has moved on, and the gates may follow the schedule.
        self._hook = optimizer.register_step_post_hook(lambda *_: self._guest.observe())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.selector is not None and optimizer is self.selector.optimizer:
            self._guest.note_scale(getattr(trainer.precision_plugin, "scaler", None))
            self._guest.checkpoint = _last_checkpoint_of(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._guest.observe()  # a step that the AMP scaler skipped did not reach the hook
        if self._guest.advance():
            _forget_best(trainer)
        # The size is for averages over an epoch. Lightning cannot find it where training_step takes batches itself.
        pl_module.log_dict({name: float(value) for name, value in self._guest.metrics().items()}, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hook.remove()
        self._guest.end()

    def state_dict(self) -> dict[str, Any]:
        if self._begun and self.selector is not None:
            return self.selector.state_dict()
        return self._saved or NOT_BEGUN

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = {} if state_dict == NOT_BEGUN else state_dict


def _refuse_averages(trainer: Trainer) -> None:
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, AVERAGES):
            raise ConfigError(
                f"{type(other).__name__} averages a copy of the module that has all adapters: choose them in a fit "
                "without it, then remove the WeightLoraLightningCallback and average while you train the chosen ones."
            )


def _last_checkpoint_of(trainer: Trainer) -> str | None:
    callback: Any = trainer.checkpoint_callback
    written = getattr(callback, "last_model_path", None) or getattr(callback, "best_model_path", None)
    return str(written or trainer.ckpt_path or "") or None


def _peft_model_of(module: nn.Module) -> nn.Module:
    """The PEFT model in a module whose adapters train; one that is frozen (a teacher) is left alone."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_modules():
        config = getattr(child, "peft_config", None)  # a module of the user's own may have one LoraConfig there
        if isinstance(config, dict) and config and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = child
    if not found:
        raise ModelError(
            f"{type(module).__name__} has no PEFT adapters in it: make its model by get_peft_model(base, "
            "LoraConfig(...))."
        )
    inner = {id(m) for outer in found.values() for m in outer.modules() if m is not outer}  # PEFT marks the base, too
    outermost = {name: child for name, child in found.items() if id(child) not in inner}
    trained = {n: m for n, m in outermost.items() if any(p.requires_grad for p in m.parameters())} or outermost
    if len(trained) > 1:
        raise ModelError(
            f"{type(module).__name__} has {len(trained)} PEFT models that train ({', '.join(trained)}), and modules "
            "are chosen in one: put them into one PEFT model."
        )
    return next(iter(trained.values()))


def _forget_best(trainer: Trainer) -> None:
    """Forget the best checkpoints and metrics of before a disconnect: the module had other adapters then."""
    for stopping in trainer.early_stopping_callbacks:
        stopping.best_score, stopping.wait_count = _worst(stopping.mode), 0
    for callback in trainer.checkpoint_callbacks:
        if not (isinstance(callback, callbacks.ModelCheckpoint) and callback.monitor and callback.best_model_path):
            continue
        rank_zero_warn(
            f"{callback.best_model_path} was the best checkpoint, but has the adapters from before the choice: the "
            "search for the best one starts again."
        )
        callback.best_k_models, callback.best_model_path, callback.kth_best_model_path = {}, "", ""
        callback.best_model_score, callback.kth_value = None, _worst(callback.mode)


def _worst(mode: str) -> Tensor:
    """What any metric is better than."""
    return torch.tensor(inf if mode == "min" else -inf)


def _optimizer_of(trainer: Trainer, parameters: list[nn.Parameter]) -> Optimizer:
    """The optimizer that trains the parameters. If none does, the first one: the selector reports what it lacks."""
    wanted = {id(parameter) for parameter in parameters}
    for optimizer in trainer.optimizers:
        if wanted & {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}:
            return optimizer
    return trainer.optimizers[0]
