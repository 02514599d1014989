"""Rules of other papers that choose before training, from a few batches: scores of modules, module types or layers.

Rules that rank modules keep as many as fit into a share of the parameters of LoRA on all modules
(`options["parameters"]`, a quarter); others keep half of the layers, or one module. All train at the rank that comes
closest to this share.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft.helpers import KappaTuneSelector
from torch import Tensor
from torch.nn import Module

from weightlora.adapters import LoraAdapter
from weightlora.budget import top_by_parameters
from weightlora.layers import block_of, relative_to_blocks
from weightlora.train.methods import Method, Prepared, Setting

from .lists import OPTIONS, Choose, train_list

Scores = list[float]
SHARE = 0.25


def weight_of(adapter: LoraAdapter) -> Tensor:
    """The frozen weight of the module that an adapter is on."""
    return adapter.layer.get_base_layer().get_parameter("weight")


@contextmanager
def weights_with_gradients(adapters: Sequence[LoraAdapter]) -> Iterator[None]:
    """Inside, backward passes also reach the frozen weights."""
    weights = [weight_of(adapter) for adapter in adapters]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


def gradients(setting: Setting, adapters: Sequence[LoraAdapter], rows: int | None = None) -> Iterator[list[Tensor]]:
    """The gradient of each frozen weight, batch by batch; of the first `rows` rows of a batch."""
    with weights_with_gradients(adapters):
        for batch in setting.batches():
            setting.model.zero_grad()
            setting.model(**{key: value[:rows] for key, value in batch.items()}).loss.backward()
            found = [weight_of(adapter).grad for adapter in adapters]
            yield [torch.zeros_like(weight_of(a)) if g is None else g for a, g in zip(adapters, found, strict=True)]
    setting.model.zero_grad()


def gora(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """GoRA: the mean of `|W * G|`, with the gradient G of all batches together."""
    totals = [torch.zeros_like(weight_of(adapter)) for adapter in adapters]
    for found in gradients(setting, adapters):
        for total, gradient in zip(totals, found, strict=True):
            total += gradient
    return [float((weight_of(a) * total).abs().mean()) for a, total in zip(adapters, totals, strict=True)]


def gora_per_block(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """GoRA's score relative to the mean of the block, as the package's probe compares its own."""
    scores = torch.tensor(gora(setting, adapters), dtype=torch.float64)
    return relative_to_blocks(scores, [adapter.name for adapter in adapters]).tolist()


def fisher(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """The mean squared gradient of W, over batches. The Fisher information would have the gradients of single rows.

    Papers add such scores up by layer. Here they rank modules.
    """
    scores = torch.zeros(len(adapters))
    for found in gradients(setting, adapters):
        scores += torch.stack([gradient.square().mean() for gradient in found])
    return scores.tolist()


def gradient_norms(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """The sum of `||dL/dW||_F` over five batches of one row, as aletheia-lora has it."""
    scores, rows = torch.zeros(len(adapters)), 1
    for _, found in zip(range(5), gradients(setting, adapters, rows), strict=False):
        scores += torch.stack([gradient.norm() for gradient in found])
    return scores.tolist()


@torch.no_grad()
def feature_norms(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """PLoP's normalised feature norm: `||W' x'||` relative to its mean on Gaussian inputs; a mean by module type.

    `x' = x / ||x||` and `W' = W / rms(W)`. On Gaussian inputs, `||W' x'||^2` is `out` in the mean. The type of a
    module is its path inside its block. Padding does not count. The paper keeps the lowest.
    """
    sums, counts = torch.zeros(len(adapters)), torch.zeros(len(adapters))

    def see(index: int, rows: Tensor, _: Tensor) -> None:
        weight = weight_of(adapters[index])
        weight = weight / weight.square().mean().sqrt()
        norms = torch.nn.functional.linear(rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12), weight).norm(
            dim=-1
        )
        sums[index] += norms.sum() / weight.shape[0] ** 0.5
        counts[index] += len(rows)

    run_seeing(setting, [adapter.layer.get_base_layer() for adapter in adapters], see)
    types = [adapter.name.removeprefix(f"{block_of(adapter.name)}.") for adapter in adapters]
    return _means((sums / counts).tolist(), types)


def run_seeing(
    setting: Setting, modules: Sequence[Module], see: Callable[[int, Tensor, Tensor], None], first_tokens: bool = False
) -> None:
    """Run the model on all batches. `see` gets the index of a module, and the rows that go into it and come out.

    A row is a token, or an example where a module reads no tokens. Padding is left out; with `first_tokens`, all but
    the first token of each text.
    """
    mask = torch.ones(0, dtype=torch.bool)

    def hook(index: int, module: Module, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Any) -> None:
        before = inputs[0] if inputs else named["hidden_states"]
        after = output if isinstance(output, Tensor) else output[0]
        see(index, *(rows[mask] if rows.shape[:-1] == mask.shape else rows.flatten(0, -2) for rows in (before, after)))

    handles = [m.register_forward_hook(partial(hook, index), with_kwargs=True) for index, m in enumerate(modules)]
    try:
        for batch in setting.batches():
            mask = batch["attention_mask"].bool()
            if first_tokens:
                mask = mask & (mask.cumsum(dim=-1) == 1)
            setting.model(**batch)
    finally:
        for handle in handles:
            handle.remove()


def condition_numbers(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """The place of each frozen weight in the order of PEFT's KappaTune: the lowest condition number comes first."""
    order = KappaTuneSelector(setting.model, show_progress=False).get_best_targets()
    places = {name.removesuffix(".base_layer"): float(place) for place, name in enumerate(order)}
    return [places[adapter.name] for adapter in adapters]


@torch.no_grad()
def similarities(setting: Setting, adapters: list[LoraAdapter], first_tokens: bool = False) -> Scores:
    """Linear CKA between the hidden states before and after each layer, without padding; 0 outside the layers.

    All tokens count, or the first one of each text, which the authors of the rule read in an encoder.
    """
    blocks = [*dict.fromkeys(block for adapter in adapters if (block := block_of(adapter.name)))]
    seen: defaultdict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    layers = [setting.model.get_submodule(block) for block in blocks]
    run_seeing(setting, layers, lambda index, before, after: seen[blocks[index]].append((before, after)), first_tokens)
    cka = {block: _cka(*map(torch.cat, zip(*pairs, strict=True))) for block, pairs in seen.items()}
    return [cka.get(block_of(adapter.name), 0.0) for adapter in adapters]


def _cka(one: Tensor, other: Tensor) -> float:
    one, other = (rows.double() - rows.double().mean(0) for rows in (one, other))
    return float((one.T @ other).norm() ** 2 / ((one.T @ one).norm() * (other.T @ other).norm()).clamp_min(1e-12))


def _means(scores: Sequence[float], groups: Sequence[str]) -> Scores:
    """Each score replaced by the mean of its group."""
    members: defaultdict[str, list[float]] = defaultdict(list)
    for score, group in zip(scores, groups, strict=True):
        members[group].append(score)
    return [sum(members[group]) / len(members[group]) for group in groups]


Score = Callable[[Setting, list[LoraAdapter]], Scores]


def best_modules(score: Score, sign: int, setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """The modules with the highest scores (the lowest, with sign -1) that fit into the share."""
    sizes = [adapter.size for adapter in adapters]
    budget = int(setting.options["parameters"] * sum(sizes))
    scores = sign * torch.tensor(score(setting, adapters), dtype=torch.float64)
    kept = top_by_parameters(scores, sizes, budget).tolist()
    return [adapter.name for adapter, stays in zip(adapters, kept, strict=True) if stays]


def best_layers(
    score: Score, sign: int, setting: Setting, adapters: list[LoraAdapter], left_out: int = 0
) -> list[str]:
    """All modules of the half of the layers with the highest scores (the lowest, with sign -1).

    The first `left_out` of them are passed over.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for adapter, value in zip(adapters, score(setting, adapters), strict=True):
        if block := block_of(adapter.name):
            totals[block] += sign * value
    half = sorted(totals, key=lambda block: -totals[block])[left_out:][: len(totals) // 2]
    return [adapter.name for adapter in adapters if block_of(adapter.name) in half]


def best_one(score: Score, setting: Setting, adapters: list[LoraAdapter], within_blocks: bool = False) -> list[str]:
    """The one module with the highest score, of all or of those in blocks."""
    scores = zip(score(setting, adapters), (adapter.name for adapter in adapters), strict=True)
    return [max(pair for pair in scores if block_of(pair[1]) or not within_blocks)[1]]


@torch.enable_grad()
def energies(setting: Setting, adapters: list[LoraAdapter]) -> Scores:
    """PAGE's score: the energy of the gradient of B."""
    scores = torch.zeros(len(adapters))
    for batch in setting.batches():
        setting.model.zero_grad()
        setting.model(**batch).loss.backward()
        found = [adapter.factors[1].grad for adapter in adapters]
        scores += torch.tensor([0.0 if gradient is None else float(gradient.square().sum()) for gradient in found])
    setting.model.zero_grad()
    return scores.tolist()


def train_chosen(choose: Choose, setting: Setting) -> Prepared:
    """LoRA on what a rule chooses, at the rank that comes closest to the share of the parameters."""
    return train_list(choose, replace(setting, options={"parameters": SHARE} | setting.options))


CHOICES: Mapping[str, Choose] = {
    "gora-per-block": partial(best_modules, gora_per_block, 1),
    "fisher": partial(best_modules, fisher, 1),
    "kappatune": partial(best_modules, condition_numbers, -1),
    "plop": partial(best_modules, feature_norms, 1),
    "plop-lowest": partial(best_modules, feature_norms, -1),
    "aletheia": partial(best_layers, gradient_norms, 1),
    "cka": partial(best_layers, similarities, -1),
    "cka-first-token": partial(best_layers, partial(similarities, first_tokens=True), -1, left_out=1),
    "page": partial(best_one, energies),
    "page-in-blocks": partial(best_one, energies, within_blocks=True),
}
METHODS = {
    name: Method(partial(train_chosen, choose), OPTIONS, reads_weights=True) for name, choose in CHOICES.items()
}
"""Each trains the modules, the layers or the one module that its rule prefers."""
