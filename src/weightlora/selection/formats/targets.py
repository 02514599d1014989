"""What the formats share: names or one expression, ranks and alphas for tools with and without patterns."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

from ...layout import layers_and_types
from .wording import how_many

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))


def expression_note(selection: Any) -> str | None:
    """What PEFT 0.21 does with an expression on models with fused experts; None for others."""
    adapted = any(module.kind == "parameter" for module in selection.modules)  # all that earlier files say of experts
    if not selection.fused_experts and not adapted:
        return None
    return (
        "On Mixtral, Qwen MoE and their kin, PEFT 0.21 adapts what an expression matches in all layers: give a list."
    )


def patterns_note(selection: Any) -> str | None:
    """What to think of a warning of PEFT 0.21, which looks for patterns among the modules alone; None without it."""
    if not any(name in {*selection.rank_pattern, *selection.alpha_pattern} for name in selection.target_parameters):
        return None
    return "PEFT 0.21 warns that it ignores the rank_pattern and alpha_pattern of parameters. It does apply them."


class One(NamedTuple):
    """One rank and scaling for all modules, for a tool that has no patterns.

    Attributes:
        rank: The largest.
        scaling: The most frequent.
        alpha: What gives this scaling at this rank.
        notes: What the tool cannot express.
    """

    rank: int
    scaling: float
    alpha: float
    notes: tuple[str, ...]


def one_for_all(selection: Any, tool: str, rslora: bool = True) -> One:
    """The nearest to the choice that a tool without patterns can express.

    Args:
        selection: The selection.
        tool: Its name.
        rslora: Whether the tool knows rsLoRA. Else alpha is the one that gives the same scaling without it.
    """
    rank, exact = selection.rank, list(selection.scalings.values())
    scalings = [float(f"{scaling:.12g}") for scaling in exact]
    scaling = Counter(scalings).most_common(1)[0][0]
    root = math.sqrt(rank) if rslora and selection.use_rslora else rank
    notes = []
    if len(set(selection.ranks.values())) > 1:
        ranks = how_many(selection.ranks.values())
        notes.append(f"{tool} has one rank for all modules, and the choice has {ranks}: this is the largest.")
    if len(set(scalings)) > 1:
        found = how_many(scalings)
        notes.append(f"{tool} has one scaling for all modules, and the choice has {found}: this is the most frequent.")
    alpha = exact[scalings.index(scaling)] * root  # the rounded scaling times a root would be no whole number
    return One(rank, scaling, float(f"{alpha:.12g}"), tuple(notes))


class Whole(NamedTuple):
    """Alphas as whole numbers, and a note if that changes one."""

    alpha: int
    pattern: dict[str, int]
    note: str | None


def whole_numbers(tool: str, alpha: float, pattern: dict[str, float] | None = None) -> Whole:
    """Alphas for a tool that takes whole numbers alone: the nearest, and at least 1."""
    given = [alpha, *(pattern or {}).values()]
    changed = [
        f"{max(1, round(value))} stands for {value:g}" for value in dict.fromkeys(given) if not _is_count(value)
    ]
    note = f"{tool} takes whole numbers as alpha: {', '.join(changed)}." if changed else None
    return Whole(max(1, round(alpha)), {name: max(1, round(value)) for name, value in (pattern or {}).items()}, note)


def _is_count(value: float) -> bool:
    return value >= 1 and float(value).is_integer()


def short_form(selection: Any) -> tuple[list[str], list[int]] | None:
    """Module types and layers of a choice that is a grid: the same types in each of its layers.

    They are what PEFT's `target_modules` and `layers_to_transform` take. None if the choice is no grid, is small, or
    the two would match other modules that could be chosen.
    """
    names = selection.module_names
    split = layers_and_types(names)
    if len(names) < 4 or not selection.unambiguous or any(layer is None for layer, _, _ in split):
        return None
    types = list(dict.fromkeys(".".join(after) for _, _, after in split))
    layers = sorted({layer for layer, _, _ in split if layer is not None})
    if len(types) * len(layers) != len(names) or len(layers) < 2:
        return None
    config = LoraConfig(target_modules=types, layers_to_transform=layers)
    matched = [m.name for m in selection.modules if m.kind == "module" and check_target_module_exists(config, m.name)]
    return (types, layers) if matched == names else None


def grid_note(selection: Any, quote: Callable[[str], str], form: str) -> str | None:
    """The short form of a choice, as a tool writes `types` and `layers`; None where there is none."""
    if (short := short_form(selection)) is None:
        return None
    types = ", ".join(map(quote, short[0]))
    return f"Or, where the model has no others of these names: {form.format(types=types, layers=short[1])}"


def kernels_note(selection: Any, kernels: str) -> str | None:
    """How many blocks the fused kernels of a tool leave out, because only a part of such a block was chosen."""
    if not (split := split_groups(selection)):
        return None
    blocks = "1 attention or MLP block" if split == 1 else f"{split} attention or MLP blocks"
    return f"{kernels} leave out {blocks}, where only a part of q, k, v or of gate, up, down has an adapter."


def split_groups(selection: Any) -> int:
    """Number of attention and MLP blocks in which a part of q, k and v, or a part of gate, up and down, was chosen."""
    chosen = set(selection.module_names)
    split = set()
    for name in chosen:
        leaf = name.rpartition(".")[2]
        block = name.removesuffix(leaf)
        for group in FUSED:
            if leaf in group and not {block + other for other in group} <= chosen:
                split.add(block)
    return len(split)
