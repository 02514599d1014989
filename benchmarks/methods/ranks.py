"""WeightLoRA+ before the first step: what the probe chose at a higher rank, or ranks in proportion to its scores.

Parameters are shares of those of LoRA on all modules at the setting's rank. All ranks have the same scaling.
"""

from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD

from weightlora import WeightLoraConfig
from weightlora.adapters import LoraAdapter, find_adapters
from weightlora.budget import top_by_parameters
from weightlora.engines import engine_for
from weightlora.probe import gather
from weightlora.rules.gradient import GradientProbe
from weightlora.train.methods import Method, Prepared, Setting

from .lists import OPTIONS, train_list

__all__ = ["METHODS", "proportional_ranks"]

CHOSEN = 0.25
"""The share into which the chosen modules fit at the setting's rank."""


def probe_scores(setting: Setting, adapters: list[LoraAdapter]) -> Tensor:
    """The scores of the package's probe, shape `(n,)`."""
    trained = [parameter for adapter in adapters for parameter in adapter.parameters]
    config, optimizer = WeightLoraConfig(selection=GradientProbe.name), SGD(trained)
    rule = GradientProbe(adapters, optimizer, config)
    engine = engine_for(setting.model, optimizer)
    gather(setting.model, adapters, rule, engine, setting.batches(), None, config.probe_batches)
    return rule.score


def chosen(setting: Setting, adapters: list[LoraAdapter]) -> list[str]:
    """The modules with the highest scores that fit into a quarter of the parameters."""
    sizes = [adapter.size for adapter in adapters]
    kept = top_by_parameters(probe_scores(setting, adapters), sizes, int(CHOSEN * sum(sizes))).tolist()
    return [adapter.name for adapter, stays in zip(adapters, kept, strict=True) if stays]


def proportional_ranks(scores: Tensor, per_rank: Tensor, most: int) -> list[int]:
    """The largest ranks in proportion to scores with which all adapters together fit; 0 where one has no room.

    Args:
        scores: Shape `(n,)`, not negative, one of them positive.
        per_rank: Parameters of each adapter at rank 1, shape `(n,)`.
        most: The most parameters of all.
    """
    low, high = 0.0, most / float((scores * per_rank).sum()) + 1 / float(scores.max())
    for _ in range(100):
        middle = (low + high) / 2
        if int(((scores * middle).round() * per_rank).sum()) <= most:
            low = middle
        else:
            high = middle
    return [int(rank) for rank in (scores * low).round().tolist()]


def proportional(setting: Setting) -> Prepared:
    """LoRA with ranks in proportion to the probe's scores: of all modules, or of the chosen ones."""
    with torch.random.fork_rng(devices=[]):  # the adapters start as with LoRA on all modules
        model = setting.lora()
        try:
            adapters = find_adapters(model)
            scores = probe_scores(setting, adapters)
            if setting.options.get("chosen"):
                sizes = [adapter.size for adapter in adapters]
                scores = torch.where(top_by_parameters(scores, sizes, int(CHOSEN * sum(sizes))), scores, 0.0)
            whole = torch.tensor([adapter.size for adapter in adapters], dtype=torch.float64)
            most = int(setting.options.get("parameters", 1.0) * int(whole.sum()))
            ranks = proportional_ranks(scores, whole / setting.rank, most)
            candidates = {adapter.name: adapter.size for adapter in adapters}
        finally:
            model.unload()
    given = {name: rank for name, rank in zip(candidates, ranks, strict=True) if rank}
    alphas = {name: setting.alpha * rank / setting.rank for name, rank in given.items()}
    model = setting.lora(target_modules=list(given), rank_pattern=given, alpha_pattern=alphas)
    return Prepared(model, candidates=candidates)


METHODS = {
    "probe-wide": Method(partial(train_list, chosen), OPTIONS | {"rslora"}, reads_weights=True),
    "probe-ranks": Method(proportional, frozenset({"parameters", "chosen"}), reads_weights=True),
}
"""`probe-wide` trains the chosen modules at one rank, `probe-ranks` spreads parameters in proportion to the scores."""
