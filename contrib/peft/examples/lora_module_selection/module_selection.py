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
import re
from collections.abc import Iterable
from itertools import islice
from typing import Union

import torch

from peft import PeftModel, PeftType
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
from peft.tuners.lora.variants import ALoraLinearVariant, DoraLinearVariant


ROWS = 64  # of all draws of a `lora_A` together: 8 draws at rank 8


def select_target_modules(
    model: PeftModel, batches: Iterable[dict], budget: float = 0.25, num_batches: int = 4
) -> Union[list[str], str]:
    """
    Selects the modules whose LoRA adapters have the largest gradients before training.

    The score of a module is the L1 norm of the gradient of its fresh `lora_A` and `lora_B`, summed over the batches and
    averaged over several draws of `lora_A`, divided by the mean of the transformer block that it is in. The modules
    with the highest scores are selected, as many as fit into the budget.

    The weights and buffers do not change, and the selection takes little longer than `num_batches` training steps.

    Args:
        model (`PeftModel`):
            A model with LoRA on all candidates, for example with `target_modules="all-linear"`. It must not be trained
            yet, so that `lora_B @ lora_A` is 0.
        batches (`Iterable[dict]`):
            Batches of training data with labels, for example a data loader.
        budget (`float`):
            The share of the adapter parameters of all candidates that the selected ones may have, between 0 and 1.
        num_batches (`int`):
            The number of batches to use.

    Returns:
        `list[str]` or `str`: The `target_modules` of the selected modules, in the order of the model. A regular
        expression if a list would also match other modules.
    """
    if not 0 < budget < 1:
        raise ValueError(f"`budget` is {budget}, but it must be between 0 and 1.")
    layers = lora_layers(model)
    sizes = {name: sum(p.numel() for p in adapter_parameters(layer)) for name, layer in layers.items()}
    room = int(round(budget * sum(sizes.values()), 6))  # 0.7 * 10 is below 7
    if room < min(sizes.values()):
        raise ValueError(f"`budget` is {budget}, which is too small for any module: raise it.")

    scores = relative_to_blocks(gradient_norms(model, layers, islice(batches, num_batches)))
    selected = set()
    for name in sorted(scores, key=lambda name: -scores[name]):
        if sizes[name] <= room:
            selected.add(name)
            room -= sizes[name]

    names = [name for name in layers if name in selected]
    others = [name for name, _ in model.get_base_model().named_modules() if name not in selected]
    if any(other.endswith(f".{name}") for other in others for name in names):
        # A name in a list also matches each longer name that ends with it, but a regex has to match the whole name.
        return "|".join(map(re.escape, names))
    return names


def gradient_norms(model: PeftModel, layers: dict[str, LoraLayer], batches: Iterable[dict]) -> dict[str, float]:
    """Returns the L1 norm of the gradient of each adapter, summed over the batches and averaged over the draws."""
    was_training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # batch norm updates its statistics
    is_random = model.peft_config[model.active_adapter].init_lora_weights in (True, "gaussian")
    drawn, hooks = {}, []
    for name, layer in layers.items():
        if (draws := number_of_draws(layer, model.active_adapter)) > 1 and is_random:
            lora_a, lora_b = layer.lora_A[model.active_adapter], layer.lora_B[model.active_adapter]
            drawn[name] = torch.zeros(draws, lora_b.out_features, lora_b.in_features, device=lora_b.weight.device)
            hooks += add_draws(lora_a, lora_b, drawn[name])
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    model.zero_grad()
    try:
        with torch.random.fork_rng(sorted(devices)):  # dropout draws random numbers
            model.train()
            for batch in batches:
                model(**{name: value.to(model.device) for name, value in batch.items()}).loss.backward()
        gradients = {name: [w.grad for w in factors(layer, model.active_adapter)] for name, layer in layers.items()}
        norms = {
            name: sum(float(g.float().abs().sum()) for g in own if g is not None) for name, own in gradients.items()
        }
        norms |= {name: float(sums.abs().sum() / len(sums)) for name, sums in drawn.items()}
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad()
        for module, training in was_training.items():
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
    total = sum(norms.values())
    if not 0 < total < float("inf"):
        raise ValueError(
            f"The sum of all gradient norms is {total:g}, so there is nothing to select by. Check that there is at "
            "least one batch, and that the loss is finite."
        )
    return norms


def number_of_draws(layer: LoraLayer, adapter_name: str) -> int:
    """
    Returns how many draws of `lora_A` have `ROWS` rows together, or as many as it has inputs, if these are fewer. It is
    1 if the layer cannot have several draws.
    """
    pair = [factor[adapter_name] for factor in (layer.lora_A, layer.lora_B) if adapter_name in factor]
    if len(pair) < 2 or not all(isinstance(factor, torch.nn.Linear) for factor in pair):
        return 1
    if not isinstance(layer.lora_variant.get(adapter_name), (type(None), DoraLinearVariant, ALoraLinearVariant)):
        return 1
    return max(1, min(ROWS, pair[0].in_features) // layer.r[adapter_name])


def add_draws(lora_a: torch.nn.Linear, lora_b: torch.nn.Linear, sums: torch.Tensor) -> list:
    """
    Adds hooks that sum up the gradients that the weight of `lora_B` would have with other draws of `lora_A`.

    While `lora_B` is 0, its gradient is the gradient of the module's weight, projected on the rows of `lora_A`. With
    few rows, it depends much on how `lora_A` was initialized. The output does not depend on `lora_A` yet, so several
    draws can share one backward pass. A draw is `lora_A`, shifted along its inputs, with random signs of them.
    """
    projections = []
    signs = draw_signs(len(sums), lora_a.in_features)

    @torch.no_grad()
    def project(module, args):
        projections.append(torch.nn.functional.linear(args[0], draws_of(module.weight, signs)))

    def follow(module, args, output):
        projection = projections.pop()
        if output.requires_grad:

            @torch.no_grad()
            def add(gradient):
                rows = gradient.reshape(-1, gradient.shape[-1])
                product = rows.T @ projection.reshape(-1, projection.shape[-1]).to(rows.dtype)
                sums.add_(product.to(sums).unflatten(1, (len(sums), -1)).transpose(0, 1))

            output.register_hook(add)

    return [lora_a.register_forward_pre_hook(project), lora_b.register_forward_hook(follow, prepend=True)]


def draw_signs(draws: int, inputs: int) -> torch.Tensor:
    """Returns a sign for each input of each draw, in the shape `(draws, 1, inputs)`. The first draw is `lora_A`."""
    signs = torch.randint(2, (draws, 1, inputs), generator=torch.Generator().manual_seed(0), device="cpu") * 2 - 1
    signs[0] = 1
    return signs


def draws_of(weight: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Returns all draws of the weight of `lora_A`, one below the other."""
    step = weight.shape[1] // len(signs)
    shifted = torch.stack([weight.roll(step * draw, dims=1) for draw in range(len(signs))])
    return (shifted * signs.to(shifted)).flatten(0, 1)


def relative_to_blocks(scores: dict[str, float]) -> dict[str, float]:
    """
    Divides each score by the mean of its block, because gradients grow towards the output.

    A block is a module path up to the first number, such as `model.layers.3`. A module outside all blocks counts to
    the block before it.
    """
    matches = {name: re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name) for name in scores}
    blocks: dict[str, list[str]] = {}
    block = next((match.group() for match in matches.values() if match), "")
    for name, match in matches.items():
        block = match.group() if match else block
        blocks.setdefault(block, []).append(name)
    inside = [match.group() for match in matches.values() if match]
    if len(set(inside)) == len(inside):  # no block has two modules to compare
        blocks = {"": list(scores)}
    means = {name: sum(scores[name] for name in names) / len(names) for names in blocks.values() for name in names}
    return {name: score / means[name] if means[name] else 0.0 for name, score in scores.items()}


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """Returns the LoRA layers by the name that `target_modules` uses, or raises an error if one is not supported."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"The model is a {type(model).__name__}, not a `PeftModel`: call `get_peft_model` first.")
    config = model.peft_config[model.active_adapter]
    if config.peft_type != PeftType.LORA or len(model.peft_config) > 1:
        raise ValueError("The model must have one adapter, and it must be LoRA.")
    layers = {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    unsupported = [name for name, layer in layers.items() if isinstance(layer, (MultiheadAttention, ParamWrapper))]
    if unsupported:
        raise ValueError(
            f"{unsupported[0]} is adapted as `nn.MultiheadAttention` or by `target_parameters`: leave it out."
        )
    for name, layer in layers.items():
        if not adapter_parameters(layer):
            raise ValueError(f"The adapter on {name} is not trainable: do not set `inference_mode`.")
        if all(factor.any() for factor in factors(layer, model.active_adapter)):
            raise ValueError(
                f"The adapter on {name} does not start from 0: use a model that was not trained yet, with "
                "`init_lora_weights=True`."
            )
    return layers


def adapter_parameters(layer: LoraLayer) -> list[torch.nn.Parameter]:
    """Returns the trainable parameters that the adapter adds to the base layer."""
    return [p for name, p in layer.named_parameters() if p.requires_grad and not name.startswith("base_layer.")]


def factors(layer: LoraLayer, adapter_name: str) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """Returns the weights of `lora_A` and `lora_B`, or their counterparts in an embedding."""
    if adapter_name in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter_name], layer.lora_embedding_B[adapter_name]
    return layer.lora_A[adapter_name].weight, layer.lora_B[adapter_name].weight
