"""WeightLoRA+ before the first step: what the probe chose at a higher rank, or ranks in proportion to its scores.

Parameters are shares of those of LoRA on all modules at the setting's rank. All ranks have the same scaling.
"""

import torch
from torch import Tensor

from weightlora.adapters import LoraAdapter
from weightlora.budget import Budget, top_by_parameters
from weightlora.selection.proportional import Start, ranks_in_proportion
from weightlora.train.methods import Method, Prepared, Setting, all_adapters

from .lists import OPTIONS, train_list
from .probes import probe_scores

CHOSEN = 0.25
"""The share into which the chosen modules fit at the setting's rank."""


def in_a_quarter(scores: Tensor, sizes: list[int]) -> Tensor:
    """Mask of the modules with the highest scores that fit into a quarter of the parameters, shape `(n,)`."""
    return top_by_parameters(scores, sizes, int(CHOSEN * sum(sizes)))


def wide(setting: Setting) -> Prepared:
    """LoRA at one rank on the modules that the probe chooses."""
    scores = probe_scores(setting)

    def choose(_: Setting, adapters: list[LoraAdapter]) -> list[str]:
        found = torch.tensor([scores[adapter.name] for adapter in adapters])
        kept = in_a_quarter(found, [adapter.size for adapter in adapters]).tolist()
        return [adapter.name for adapter, stays in zip(adapters, kept, strict=True) if stays]

    return train_list(choose, setting)


def proportional(setting: Setting) -> Prepared:
    """LoRA with ranks in proportion to the probe's scores: of all modules, or of the chosen ones."""
    by_name = probe_scores(setting)
    with all_adapters(setting) as adapters:  # the adapters start as with LoRA on all modules
        candidates, starts = {adapter.name: adapter.size for adapter in adapters}, [*map(Start.of, adapters)]
    sizes, scores = [*candidates.values()], torch.tensor([by_name[name] for name in candidates], dtype=torch.float64)
    if setting.options.get("chosen"):
        scores = torch.where(in_a_quarter(scores, sizes), scores, 0.0)
    most = int(setting.options.get("parameters", 1.0) * sum(sizes))
    ranks = ranks_in_proportion(scores.tolist(), starts, Budget(((len(sizes), most),)))
    given = {name: rank for name, rank in zip(candidates, ranks, strict=True) if rank}
    alphas = {name: setting.alpha * rank / setting.rank for name, rank in given.items()}
    model = setting.lora(target_modules=list(given), rank_pattern=given, alpha_pattern=alphas)
    return Prepared(model, candidates=candidates)


METHODS = {
    "probe-wide": Method(wide, OPTIONS | {"rslora"}, reads_weights=True),
    "probe-ranks": Method(proportional, frozenset({"parameters", "chosen"}), reads_weights=True),
}
"""`probe-wide` trains the chosen modules at one rank, `probe-ranks` spreads parameters in proportion to the scores."""
