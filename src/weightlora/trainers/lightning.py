"""The controller inside Lightning's Trainer, through its callback hooks; and resuming from Lightning's checkpoints."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from ..adapters import find_adapters
from ..checkpoint import bring_to_
from ..config import WeightLoraConfig
from ..selector import WeightLora
from ..state import State, check_config


class WeightLoraLightningCallback(Callback):
    """Runs a `WeightLora` selection on the PEFT model inside a LightningModule.

    Logs `weightlora/active_adapters` and `weightlora/trainable_parameters`. Its state is in Lightning's checkpoints,
    and `trainer.fit(module, ckpt_path=...)` goes on from it.

    Args:
        config: The settings.

    Attributes:
        selector: The `WeightLora`, from the start of training on.

    Raises:
        ValueError: Before the first step, if the module has no LoRA adapters, or the settings, the strategy or the
            checkpoint do not fit.
    """

    def __init__(self, config: WeightLoraConfig | None = None) -> None:
        self.config = config or WeightLoraConfig()
        self.selector: WeightLora | None = None
        self._saved: dict[str, Any] = {}
        self._grad_scale: float | None = None  # of a step whose evidence was not taken yet

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.strategy.restore_checkpoint_after_setup:
            raise ValueError(
                f"{type(trainer.strategy).__name__} lays parameters out once and for all: choose the adapters on one "
                "device or with strategy='ddp', and train the chosen ones here."
            )

        # Lightning asks callbacks after the weights were loaded, which is too late: other adapters were on the model.
        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            self._restore_structure(pl_module, checkpoint)
            type(pl_module).on_load_checkpoint(pl_module, checkpoint)

        vars(pl_module)["on_load_checkpoint"] = on_load_checkpoint

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def _restore_structure(self, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None:
            raise ValueError(
                "this checkpoint holds no selection: resume from one that was saved with this callback, or without it."
            )
        parsed = State.from_dict(state)
        check_config(parsed, self.config)
        model = _peft_model_of(pl_module)
        bring_to_(model, find_adapters(model, self.config.adapter_name), parsed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        self.config.resolve(steps)
        if self.selector is not None:
            raise ValueError(
                f"this callback has chosen {len(self.selector.kept)} adapters in an earlier fit(): leave it out to "
                "train them on, or make a new one to choose again."
            )
        model = _peft_model_of(pl_module)
        optimizer = _optimizer_of(trainer, find_adapters(model, self.config.adapter_name)[0].parameters)
        self.selector = WeightLora(model, optimizer, self.config, self._saved or None, total_steps=steps)
        # Before the LR schedule moves on: on_train_batch_end is after it.
        self._hook = optimizer.register_step_post_hook(lambda *_: self._observe())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.selector is not None and optimizer is self.selector.optimizer:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._grad_scale = 1.0 if scaler is None else scaler.get_scale()

    def _observe(self) -> None:
        grad_scale, self._grad_scale = self._grad_scale, None
        if self.selector is not None and grad_scale is not None:
            self.selector.observe(grad_scale)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._observe()  # of a step that the AMP scaler has skipped
        selector = self.selector
        assert selector is not None
        selector.advance()
        trainable = sum(p.numel() for a in selector.adapters for p in a.parameters if p.requires_grad)
        numbers = {"active_adapters": len(selector.kept), "trainable_parameters": trainable}
        pl_module.log_dict({f"weightlora/{name}": float(number) for name, number in numbers.items()})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.selector is not None
        self._hook.remove()
        if self.selector.phase != "train":
            warnings.warn(
                f"training ended after {self.selector.step_count} of {self.selector.config.select_steps} selection "
                "steps: the choice is made now, and the kept adapters were not trained on their own.",
                stacklevel=2,
            )
            self.selector.finish()

    def state_dict(self) -> dict[str, Any]:
        return self._saved if self.selector is None else self.selector.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict


def _peft_model_of(module: nn.Module) -> nn.Module:
    for child in module.modules():
        if getattr(child, "peft_config", None):
            return child
    raise ValueError(
        f"{type(module).__name__} has no PEFT adapters in it: make its model by get_peft_model(base, LoraConfig(...))."
    )


def _optimizer_of(trainer: Trainer, parameters: list[nn.Parameter]) -> Optimizer:
    """The one that trains them; where none does, the first, of which the controller then says what it lacks."""
    wanted = {id(parameter) for parameter in parameters}
    for optimizer in trainer.optimizers:
        if wanted & {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}:
            return optimizer
    return trainer.optimizers[0]
