"""DeepSpeed (ZeRO 1 to 3), which keeps gradients and master weights in flat partitions.

Its public functions give and take them whole: `safe_get_full_grad`, `safe_get_full_fp32_param`,
`safe_get_full_optimizer_state`, and their setters. The gradients are there between `backward()` and `step()` alone, so
`step()` is wrapped: before it, copies of the gradients are shown to the rules, and after it, those of the weights.
"""

import contextlib
import math
from collections.abc import Iterator
from functools import wraps
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter, unwrap_model
from ..errors import ModelError, TrainingError
from ..tensors import forget_whole_, gradient_of, hide_, local, note_whole_, show_
from . import processes
from .carry import drop_carried, gathered, put_back_, write_carried
from .phased import Phased

# What ZeRO 3 leaves on modules beside the attributes that begin with "ds_".
LEFT_ON_MODULES = {
    "_external_params",
    "_original_parameters",
    "all_parameters",
    "applied_pre_backward_ref_cnt",
    "pre_bwd_fn",
    "post_bwd_fn",
}


class DeepSpeed(Phased):
    """Serves a model that a `DeepSpeedEngine` trains.

    Attributes:
        engine: DeepSpeed's engine, as soon as the accelerator has built it.
    """

    title = "DeepSpeed"

    def __init__(self) -> None:
        super().__init__()
        self.engine: Any = None
        self._watched: list[nn.Parameter] = []
        self._stand_in: StandIn | None = None

    @contextlib.contextmanager
    def serving(self, accelerator: Any) -> Iterator[None]:
        prepare = accelerator.prepare

        def prepare_and_take_over(*objects: Any, **kwargs: Any) -> Any:
            prepared = prepare(*objects, **kwargs)
            wrapper = accelerator.deepspeed_engine_wrapped
            if wrapper is not None and wrapper.engine is not self.engine:
                self.take_over_(wrapper.engine)
            return prepared

        vars(accelerator)["prepare"] = prepare_and_take_over
        try:
            yield
        finally:
            del vars(accelerator)["prepare"]

    def take_over_(self, engine: Any) -> None:
        """Wrap an engine's `step()`, and how it writes and reads the checkpoint between two phases.

        Raises:
            ModelError: If DeepSpeed's functions do not reach what a selection needs.
        """
        refuse_engine(engine)
        self.engine, self._stand_in = engine, None
        step, save, load = engine.step, engine.save_checkpoint, engine.load_checkpoint

        @wraps(step)
        def watched_step(*args: Any, **kwargs: Any) -> Any:
            if not engine.is_gradient_accumulation_boundary():
                return step(*args, **kwargs)
            self._before_step()
            done = step(*args, **kwargs)
            self._after_step()
            return done

        @wraps(save)
        def save_checkpoint(save_dir: str, *args: Any, **kwargs: Any) -> Any:
            if not self.waiting:
                if processes.is_first():
                    drop_carried(save_dir)  # an earlier run's
                return save(save_dir, *args, **kwargs)
            leaving = {id(parameter) for adapter in self.waiting for parameter in adapter.parameters}
            return write_carried(engine, leaving, save_dir)

        @wraps(load)
        def load_checkpoint(load_dir: str, *args: Any, **kwargs: Any) -> Any:
            return put_back_(engine, load_dir) or load(load_dir, *args, **kwargs)

        vars(engine).update(step=watched_step, save_checkpoint=save_checkpoint, load_checkpoint=load_checkpoint)

    def hold_again_(self, trainer: Any) -> None:
        from accelerate.utils import DummyOptim

        # ZeRO does not hold a model without an optimizer.
        if "optimizer" in trainer.accelerator.state.deepspeed_plugin.deepspeed_config:
            optimizer = DummyOptim([one for one in trainer.model.parameters() if one.requires_grad])
        else:
            optimizer = trainer.create_optimizer()
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, optimizer)
        trainer.deepspeed = trainer.model_wrapped

    def attach(self, model: nn.Module) -> None:
        """Show the weights of the adapters, and how large they are as a whole."""
        self.close()
        layers = [module for module in unwrap_model(model).modules() if isinstance(module, LoraLayer)]
        adapters = [LoraAdapter("", "module", layer, name, drawn=False) for layer in layers for name in layer.scaling]
        partitioned = self.engine.zero_optimization_stage() == 3
        if partitioned and (variants := sorted({a.variant for a in adapters if a.variant})):
            raise ModelError(
                f"{variants[0]} needs the whole base weights, and ZeRO 3 keeps parts of them: set stage 1 or 2."
            )
        parameters = dict.fromkeys(parameter for adapter in adapters for parameter in adapter.parameters)
        if partitioned:
            for parameter in parameters:
                note_whole_(parameter, parameter.ds_numel, 1)  # type: ignore[attr-defined]
        self._watched = [parameter for parameter in parameters if parameter.requires_grad]
        self._show_weights()

    def optimizer_of(self, optimizer: Optimizer) -> Optimizer:
        self._stand_in = StandIn(self._watched, self.engine.optimizer.param_groups[0])
        return self._stand_in

    def backward(self, loss: Tensor) -> None:
        """Add the gradients up in what is shown, averaged over the processes. DeepSpeed's own do not hear of it."""
        found = torch.autograd.grad(loss, self._watched, allow_unused=True)
        for parameter, gradient in zip(self._watched, found, strict=True):
            earlier = gradient_of(parameter)
            whole = torch.zeros_like(local(parameter)) if gradient is None else gradient.float()
            shared = processes.average(whole)
            show_(parameter, local(parameter), shared if earlier is None else earlier + shared)

    def remove_(self, model: nn.Module, losers: list[LoraAdapter], optimizer: Optimizer) -> None:
        gone = {id(parameter) for adapter in losers for parameter in adapter.parameters}
        for parameter in [one for one in self._watched if id(one) in gone]:
            hide_(parameter)
        self._watched = [one for one in self._watched if id(one) not in gone]
        super().remove_(model, losers, optimizer)

    def close(self) -> None:
        for parameter in self._watched:
            hide_(parameter)
        self._watched = []

    @torch.no_grad()
    def to_plain_(self, model: nn.Module) -> nn.Module:
        """The model without DeepSpeed: new parameters where there were its own, whole in every process.

        They stay on their device under ZeRO 1 and 2. Under ZeRO 3 they go to the CPU, one module at a time, for the
        accelerator may not have room for all.
        """
        self.close()
        self.engine.destroy()
        fresh: dict[nn.Parameter, nn.Parameter] = {}  # the same one for each place of a tied parameter
        for module in unwrap_model(model).modules():
            if self.engine.zero_optimization_stage() == 3:
                _make_whole_(module, fresh, self.engine)
            else:
                for name, parameter in module._parameters.items():
                    if parameter is not None and parameter.requires_grad:
                        fresh.setdefault(parameter, nn.Parameter(parameter.detach().clone()))
                        module._parameters[name] = fresh[parameter]
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for key, hook in list(hooks.items()):
                    if (getattr(hook, "__module__", None) or "").startswith("deepspeed."):
                        del hooks[key]
        for old in fresh:
            forget_whole_(old)
        self.engine, self._stand_in = None, None
        return unwrap_model(model)

    @torch.no_grad()
    def _show_weights(self, factor: float = 1.0) -> None:
        """Show the present weights, and gradients that were shown before, times a factor."""
        from deepspeed.utils import safe_get_full_fp32_param

        for parameter in self._watched:
            value, gradient = safe_get_full_fp32_param(parameter), gradient_of(parameter)
            if value is None:
                raise ModelError(
                    "DeepSpeed's safe_get_full_fp32_param gives nothing for a trainable parameter of an adapter: let "
                    "the Trainer build the optimizer from all of them."
                )
            show_(parameter, value.clone(), None if gradient is None else gradient * factor)

    @torch.no_grad()
    def _before_step(self) -> None:
        from deepspeed.utils import safe_get_full_grad

        for parameter in self._watched:
            gradient = safe_get_full_grad(parameter)
            show_(parameter, local(parameter), None if gradient is None else gradient.float().clone())
        if self._stand_in is not None:
            self._stand_in.follow_(self.engine.optimizer.param_groups[0])
            self._stand_in.step()

    def _after_step(self) -> None:
        """Show the new weights, and the gradients as they were clipped.

        Raises:
            TrainingError: If the gradients were NaN or infinite.
        """
        norm, limit = self.engine.get_global_grad_norm(), self.engine.gradient_clipping()
        if norm is not None and not 0 <= float(norm) < math.inf:  # DeepSpeed writes -1 for NaN
            raise TrainingError(
                f"DeepSpeed's gradient norm is {float(norm)} in this step, so a gradient is NaN or infinite and "
                "training has diverged: lower the learning rate, and resume from a checkpoint."
            )
        clips = bool(limit) and norm is not None
        self._show_weights(min(1.0, limit / (float(norm) + 1e-6)) if clips else 1.0)


class StandIn(Optimizer):
    """Stands for DeepSpeed's optimizer: a torch optimizer whose hooks run, and which moves nothing.

    Args:
        parameters: Those of the adapters.
        group: DeepSpeed's first group of parameters, whose learning rate it has.
    """

    def __init__(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        super().__init__(parameters, {})
        self.follow_(group)

    def follow_(self, group: dict[str, Any]) -> None:
        """Take over the learning rate of the next step."""
        self.param_groups[0].update({key: group[key] for key in ("lr", "initial_lr", "max_lr") if key in group})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Run the hooks."""


def refuse_engine(engine: Any) -> None:
    """Raise a `ModelError` if DeepSpeed's functions do not reach what a selection needs."""
    if engine.fp16_enabled() or getattr(engine.optimizer, "loss_scale", 1.0) != 1.0:
        raise ModelError(
            "DeepSpeed in fp16 scales the loss and skips steps inside its engine, without reporting it: set bf16."
        )
    partitioned = engine.zero_optimization_stage() == 3
    if partitioned and any(type(parameter) is not nn.Parameter for parameter in engine.module.parameters()):
        raise ModelError(
            "ZeRO 3 cuts up quantized base weights, which cannot be put together again: set stage 1 or 2."
        )


def _make_whole_(module: nn.Module, fresh: dict[nn.Parameter, nn.Parameter], engine: Any) -> None:
    """Give a module new parameters on the CPU in the place of those that ZeRO 3 has sharded."""
    cut: dict[str, Any] = {name: one for name, one in module._parameters.items() if one is not None}
    with gathered(engine, [one for one in cut.values() if hasattr(one, "ds_id")]):
        for one in cut.values():
            whole = one.detach().to("cpu", copy=True)
            fresh.setdefault(one, nn.Parameter(whole, requires_grad=one.requires_grad))
    module._parameters = {name: fresh[cut[name]] if name in cut else None for name in module._parameters}
    for name in [name for name in vars(module) if name in LEFT_ON_MODULES or name.startswith("ds_")]:
        del vars(module)[name]
