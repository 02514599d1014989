"""LoRA on a fixed list of modules, chosen by their names and shapes alone: what people use without any search.

A list is trained at the setting's rank, or at another one with the same scaling: the rank that comes closest to a
share `options["parameters"]` of the parameters of LoRA on all modules. With `options["rslora"]`, the scaling falls
with the root of the rank.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from weightlora.adapters import LoraAdapter
from weightlora.errors import ConfigError
from weightlora.layers import block_of
from weightlora.train.lists import in_peft_default
from weightlora.train.methods import Method, Prepared, Setting, all_adapters, keep_only

from .subsets import kept_by

Choose = Callable[[Setting, list[LoraAdapter]], list[str]]
"""The names of a list, from a setting and the adapters of LoRA on all modules."""

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def _peft_default(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """PEFT's default for the model's architecture: query and value of a BERT, q_proj and v_proj of a Llama."""
    return in_peft_default(setting.model, [adapter.name for adapter in adapters])


def _attention(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """The modules of attention, its output too."""
    return [adapter.name for adapter in adapters if _in_block(adapter) and ATTENTION.search(adapter.name)]


def _mlp(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """The modules of the MLPs: those of the blocks that are not of attention."""
    return [adapter.name for adapter in adapters if _in_block(adapter) and not ATTENTION.search(adapter.name)]


def _widening(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """The modules of the MLPs with more outputs than inputs."""
    wide = {a.name for a in adapters if a.factors[1].shape[0] > a.factors[0].shape[1]}
    return [name for name in _mlp(setting, adapters) if name in wide]


def _random_alike(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """Random modules, by the seed of the run: of each number of parameters, as many as `options["like"]` names.

    It is a list of modules, or the folder with the results of a method, whose choice at the same seed counts.
    """
    names = setting.options.get("like")
    if isinstance(names, str):
        names = kept_by(names, setting.seed)
    if not isinstance(names, list) or not names:
        raise ConfigError(f"like={names!r} is not a list of names: give the modules to draw like.")
    like = set(names)
    if unknown := sorted(like - {adapter.name for adapter in adapters}):
        raise ConfigError(
            f"like has {unknown[0]!r}, which LoRA does not adapt: name modules such as {adapters[0].name}."
        )
    generator = torch.Generator().manual_seed(setting.seed)
    drawn: list[str] = []
    for size in sorted({adapter.size for adapter in adapters}):
        alike = [adapter.name for adapter in adapters if adapter.size == size]
        order = torch.randperm(len(alike), generator=generator).tolist()
        drawn += [alike[place] for place in order[: len(like.intersection(alike))]]
    return drawn


def _in_block(adapter: LoraAdapter) -> bool:
    return bool(block_of(adapter.name))


def train_list(choose: Choose, setting: Setting) -> Prepared:
    """LoRA on the list that `choose` makes. It may run the model, which has adapters on all modules then."""
    with all_adapters(setting) as adapters:  # those that stay start as with LoRA on all modules
        names = choose(setting, adapters)
        sizes = {adapter.name: adapter.size for adapter in adapters}
    if not names:
        raise ConfigError(
            f"target_modules={setting.target['target_modules']!r} have no module of this list: use another list."
        )
    rank, scaling = _rank(setting, sizes, names), {}
    if setting.options.get("rslora"):  # alpha / sqrt(r), equal to alpha / r at the setting's rank
        scaling = {"use_rslora": True, "lora_alpha": setting.alpha / setting.rank**0.5}
    return keep_only(setting.lora(rank, **scaling), names)


def _rank(setting: Setting, sizes: Mapping[str, int], names: Sequence[str]) -> int:
    share = setting.options.get("parameters")
    if share is None:
        return setting.rank
    if type(share) not in (int, float) or not 0 < share <= 1:
        raise ConfigError(f"parameters={share!r} is not a share of all parameters: give a number above 0 and up to 1.")
    per_rank = sum(sizes[name] for name in names) / setting.rank
    return max(1, round(share * sum(sizes.values()) / per_rank))


OPTIONS = frozenset({"parameters"})

METHODS: dict[str, Method] = {
    "peft-default": Method(partial(train_list, _peft_default), OPTIONS),
    "attention-only": Method(partial(train_list, _attention), OPTIONS),
    "mlp-only": Method(partial(train_list, _mlp), OPTIONS),
    "widening": Method(partial(train_list, _widening), OPTIONS),
    "random-alike": Method(partial(train_list, _random_alike), OPTIONS | {"like"}),
}
"""Each trains one list. `random-alike` draws its list. `peft-default` takes the place of the package's method: here
its parameters are a share that a setting names, or it has the setting's rank."""
