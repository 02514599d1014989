# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import logging
import re

import torch
from transformers import TrainerCallback
from transformers.training_args import ParallelMode

from peft import PeftModel, PeftType
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import MultiheadAttention


logger = logging.getLogger(__name__)


class WeightLoraCallback(TrainerCallback):
    """
    Trains all LoRA adapters for `select_steps` optimizer steps, then removes all but the `keep` best ones.

    Adapters are ranked by update credit: the decrease of the loss that an adapter's own updates bought, to first
    order, summed over the steps: `-sum(<gradient, parameter after the step - parameter before it>)`.

    Args:
        keep (`int`): The number of adapters (target modules) to keep.
        select_steps (`int`): The number of optimizer steps before the choice.

    Attributes:
        credit (`dict[str, torch.Tensor]`): The update credit so far, by the module name that `target_modules` uses.
        kept (`list[str]`): The names of the kept modules, in the order of the model. Empty before the choice.
    """

    def __init__(self, keep: int, select_steps: int) -> None:
        if keep < 1 or select_steps < 1:
            raise ValueError(f"`keep` ({keep}) and `select_steps` ({select_steps}) must be at least 1.")
        self.keep = keep
        self.select_steps = select_steps
        self.credit: dict[str, torch.Tensor] = {}
        self.kept: list[str] = []
        self._parameters: dict[str, list[torch.nn.Parameter]] = {}  # of the candidates; empty after the choice
        self._before: dict[str, list[torch.Tensor]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._parameters = {name: adapter_parameters(layer) for name, layer in lora_layers(model).items()}
        check_supported(model, args, state)
        if self.keep >= len(self._parameters):
            raise ValueError(f"`keep` is {self.keep}, and the model has {len(self._parameters)} adapters: keep fewer.")
        if self.select_steps >= state.max_steps:
            raise ValueError(
                f"`select_steps` is {self.select_steps}, and training has {state.max_steps} steps: select for fewer."
            )
        self.kept = []
        self.credit = {name: torch.zeros((), device=own[0].device) for name, own in self._parameters.items()}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._before = {name: [p.detach().clone() for p in own] for name, own in self._parameters.items()}

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, **kwargs):
        for name, before in self._before.items():
            for parameter, old in zip(self._parameters[name], before):
                if parameter.grad is not None:
                    update = parameter.float() - old.float()
                    self.credit[name] -= torch.dot(parameter.grad.float().flatten(), update.flatten())
        self._before = {}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        if not self._parameters or state.global_step < self.select_steps:
            return
        credit = torch.stack([value.cpu() for value in self.credit.values()])
        if not credit.isfinite().all() or not credit.any():
            raise ValueError(
                "The update credit is not finite, or 0 for all adapters, so there is nothing to choose by. Check that "
                "the loss is finite, and that the optimizer updates the adapters in `optimizer.step()`."
            )
        # An adapter without any gradient has a credit of exactly 0. It must not beat one with a negative credit.
        credit[credit == 0] = -torch.inf
        names = list(self._parameters)
        self.kept = [names[index] for index in sorted(credit.topk(self.keep).indices.tolist())]
        logger.info(f"Step {state.global_step}: keeping {self.keep} of {len(names)} adapters: {self.kept}")

        dropped = {name: own for name, own in self._parameters.items() if name not in self.kept}
        self._parameters = {}
        remove_from_optimizer(optimizer, [parameter for own in dropped.values() for parameter in own])
        remove_adapters(model, dropped.keys())
        # A best checkpoint from before the choice holds adapters that `load_best_model_at_end` could not load anymore.
        state.best_metric = state.best_model_checkpoint = state.best_global_step = None

    def on_train_end(self, args, state, control, **kwargs):
        if self._parameters:
            logger.warning(f"Training ended before step {self.select_steps}, so all adapters are still on the model.")


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """Returns the LoRA layers by the name of the module that each one adapts, as `target_modules` would give it."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"WeightLoRA needs a `PeftModel`, not a {type(model).__name__}: call `get_peft_model` first.")
    return {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, LoraLayer)}


def adapter_parameters(layer: LoraLayer) -> list[torch.nn.Parameter]:
    """Returns the trainable parameters that the adapter adds to the base layer."""
    return [p for name, p in layer.named_parameters() if p.requires_grad and not name.startswith("base_layer.")]


def check_supported(model: PeftModel, args, state) -> None:
    """Raises a `ValueError` for what this example does not handle, before the first step."""
    config = model.peft_config[model.active_adapter]
    layers = lora_layers(model).values()
    unsupported = {
        f"{config.peft_type}": config.peft_type != PeftType.LORA,
        "more than one adapter on the model": len(model.peft_config) > 1,
        "adapters that are not trainable": not all(adapter_parameters(layer) for layer in layers),
        "`nn.MultiheadAttention`": any(isinstance(layer, MultiheadAttention) for layer in layers),
        "`target_parameters`": bool(getattr(config, "target_parameters", None)),
        "`use_dora=True`": getattr(config, "use_dora", False),
        "`bias` other than 'none'": getattr(config, "bias", "none") != "none",
        # Some of the others, such as PiSSA, move a part of the base weights into the adapter. It would be lost.
        "`init_lora_weights` other than True": getattr(config, "init_lora_weights", True) is not True,
        "more than one process or GPU": args.parallel_mode != ParallelMode.NOT_PARALLEL,
        "DeepSpeed": args.deepspeed is not None,
        "`fp16=True`": args.fp16,
        "`torch_compile=True`": args.torch_compile,
        "resuming from a checkpoint": state.global_step > 0,
    }
    found = [feature for feature, is_used in unsupported.items() if is_used]
    if found:
        raise ValueError(f"This example of WeightLoRA does not support {', '.join(found)}.")


def remove_from_optimizer(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Takes parameters out of the optimizer, with their state. The parameter groups stay, as the scheduler needs."""
    removed = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in removed]
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def remove_adapters(model: PeftModel, names) -> None:
    """Puts the base layers back in the place of the named LoRA layers, and updates the config to the layers left."""
    base_model = model.get_base_model()
    removed = {layer for name, layer in lora_layers(model).items() if name in names}
    for parent in list(base_model.modules()):
        for child_name, child in list(parent.named_children()):
            if child in removed:
                setattr(parent, child_name, child.get_base_layer())

    config = model.peft_config[model.active_adapter]
    config.target_modules = targets = list(lora_layers(model))
    config.layers_to_transform = config.layers_pattern = None  # full names, or a regex, need neither
    for patterns in (config.rank_pattern, config.alpha_pattern):
        for pattern in list(patterns):
            if not any(re.match(rf"(.*\.)?({pattern})$", target) for target in targets):
                del patterns[pattern]
    if any(name.endswith(f".{target}") for name, _ in base_model.named_modules() for target in targets):
        # A name in a list also matches each longer name that ends with it, but a regex has to match the whole name.
        config.target_modules = "|".join(map(re.escape, targets))
    model.base_model.targeted_module_names = targets
