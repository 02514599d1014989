"""Why each module of a run was kept or dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..config import WeightLoraConfig
from ..drawing.picture import bound_in_words
from ..errors import WeightLoraError
from ..rules import RULES
from ..selection import Selection
from ..wording import are
from .history import Decision

UNSEEN = float("-inf")
"""What ranks a module that no gradient reached: below all others."""
SEEN_BY_SCORE = {name for name, rule in RULES.items() if not rule.has_gates}
"""Rules whose score is 0 where there is no evidence."""


def places_by_score(scores: Sequence[float | None], config: Mapping[str, Any]) -> list[int | None]:
    """The place of each module by score, 1 for the largest; None where there is no score. Equals share a place.

    Args:
        scores: Of the modules.
        config: The settings of the selection, which may compare magnitudes.
    """
    scores = [_ranked(config, score) for score in scores]
    known = sorted((score for score in scores if score is not None), reverse=True)
    first: dict[float, int] = {}
    for place, score in enumerate(known, start=1):
        first.setdefault(score, place)
    return [None if score is None else first[score] for score in scores]


def stopped_by_bound(selection: Selection, decisions: Sequence[Decision]) -> list[bool]:
    """Which modules a bound or a budget kept out: dropped, with a higher score than a module that was kept.

    None is counted where something else than the score and the bound decided: before the decision, with several
    rounds, and where whole groups or several seeds were compared.
    """
    none_of_them = [False] * len(selection.modules)
    bound = _bound(selection)
    ranked = ((_ranked(selection.config, module.score), module) for module in selection.modules)
    scored = [(score, module) for score, module in ranked if score is not None]
    kept = [score for score, module in scored if module.kept]
    if bound is None or len(decisions) > 1 or not kept or len(scored) < len(selection.modules):
        return none_of_them
    best = sorted(scored, key=lambda one: -one[0])[: len(kept)]
    fit = sum(module.parameters for _, module in best) <= bound and selection.config.get("keep") is not None
    if fit and not _is_measured(selection):
        return none_of_them
    lowest = min(kept)
    return [not module.kept and score > lowest for score, module in scored]


def reasons(selection: Selection, decisions: Sequence[Decision]) -> list[str]:
    """For each module in model order, one sentence."""
    if not selection.final:
        return ["The choice is not made yet." for _ in selection.modules]
    places = places_by_score([module.score for module in selection.modules], selection.config)
    bounded, bound = stopped_by_bound(selection, decisions), _bound(selection)
    n, kept = len(selection.modules), len(selection.kept)
    by_place = selection.seeds is not None and selection.rank_rule is None and selection.grouping is None
    found = []
    for module, place, stopped in zip(selection.modules, places, bounded, strict=True):
        rank = "" if place is None else f"place {place} of {n} by score"
        left = next((d for d in decisions[:-1] if module.name not in d.kept), None)
        unseen = selection.grouping is None and _ranked(selection.config, module.score) == UNSEEN
        if by_place:
            verb = "Kept" if module.kept else "Dropped"
            found.append(f"{verb}: {rank}. The mean place over the seeds decided, within the budget.")
        elif unseen:
            verb, rest = (
                ("Kept", "but the budget has room") if module.kept else ("Dropped", "so nothing is known of it")
            )
            found.append(f"{verb}: no gradient reached it, {rest}.")
        elif module.kept:
            found.append(f"Kept: {rank}." if rank else "Kept.")
        elif stopped and _is_measured(selection):
            found.append(
                f"Dropped by {bound_in_words(selection.config)}: {rank}, but the best set that fits lacks it."
            )
        elif stopped:
            found.append(
                f"Dropped by the bound on parameters: {rank}, but with its {module.parameters:,} parameters the kept "
                f"modules would have more than {bound:,}."
            )
        elif selection.grouping is not None:
            found.append(f"Dropped with its group: {rank}, and whole groups were compared.")
        elif left is not None:
            found.append(f"Dropped at step {left.step}, before the last round.")
        else:
            found.append(f"Dropped: {rank}, and {kept} {are(kept)} kept." if rank else "Dropped.")
    return found


def _is_measured(selection: Selection) -> bool:
    """Whether a budget of time or memory decides: a set of modules has a price then, and not only each module."""
    return any(selection.config.get(name) is not None for name in ("keep_step_time", "keep_memory"))


def _bound(selection: Selection) -> int | None:
    """The most parameters that the kept modules may have together; None if something else decides, too."""
    if not selection.final or selection.seeds is not None or selection.grouping is not None:
        return None
    known = {field.name for field in fields(WeightLoraConfig)}
    settings: dict[str, Any] = {name: value for name, value in selection.config.items() if name in known}
    try:
        config = WeightLoraConfig(**settings)
        return config.budget_for([module.parameters for module in selection.modules]).rounds[-1][1]
    except (WeightLoraError, TypeError, ArithmeticError):  # of another version
        return None


def _ranked(config: Mapping[str, Any], score: float | None) -> float | None:
    """The score as the rule compares it. Without gates, a score of 0 means that there is no evidence."""
    if score == 0 and config.get("selection", "credit") in SEEN_BY_SCORE:
        return UNSEEN
    return abs(score) if score is not None and config.get("rank_by") == "magnitude" else score
