"""The rule of decision of `quality/DECISION.md`, which was written before the runs, applied to the stored results."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import excludes_zero, paired

Losses = Mapping[tuple[str, str], Mapping[int, float]]
"""(task, label) -> seed -> held-out loss."""


class Candidate(NamedTuple):
    """A rule that may become the default.

    Attributes:
        alike: Label of the random sets of the same sizes as those that it chose.
        price: Its place from cheap to dear: 0 for a fixed list, 1 for a probe, 2 for a selection while training.
    """

    alike: str
    price: int


CANDIDATES = {
    "widening": Candidate("random-like-widening", 0),
    "probe": Candidate("random-like-probe", 1),
    "gora-per-block": Candidate("random-like-gora", 1),
    "weightlora": Candidate("random-like-weightlora", 2),
}
DEFAULT = "weightlora"
PEFT_DEFAULT = "peft-default"
LORA = "lora"
LOWER_RANK = "lora-equal"
"""LoRA on all modules with about as many parameters. The rule does not need it."""
TIED = 0.005
"""Candidates whose mean regrets differ by less are tied."""
FAR = 0.02
"""A candidate whose mean regret at the first look is this much above the winner's is left out of the second."""


class Look(NamedTuple):
    """A time at which the rule is applied.

    Attributes:
        seeds: Task -> number of seeds.
        margin: The default changes only where the winner's mean regret is lower by as much; None where the rule alone
            counts.
        candidates: Who takes part.
        default: The default at that time.
    """

    seeds: Mapping[str, int]
    margin: float | None
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    default: str = DEFAULT


_FIRST = ("rotten-tomatoes-all", "vader-tweets-all", "film-reviews", "spam", "supersenses")
_SECOND = (*_FIRST, "imdb-all", "film-reviews-long", "rotten-tomatoes-all-long")
FIRST = Look(dict.fromkeys(_FIRST, 5), 0.01)
SECOND = Look({**dict.fromkeys(_SECOND, 5), "smollm2-sentiment-float32": 3, "smollm2-imdb-lm-float32": 3}, None)


@dataclass(frozen=True)
class Verdict:
    """What the rule says.

    Attributes:
        regrets: Candidate -> task -> its mean loss minus the lowest mean of the candidates, as a part of LoRA's loss.
        out: Candidate -> why step 1 leaves it out, a phrase for each reason.
        unchecked: Candidates that were not compared with random sets, because that would not change the winner.
        winner: What becomes, or stays, the default.
        reason: Why, in one sentence.
    """

    regrets: Mapping[str, Mapping[str, float]]
    out: Mapping[str, list[str]]
    unchecked: list[str]
    winner: str
    reason: str

    def mean_regret(self, candidate: str) -> float:
        """The mean over tasks."""
        return fmean(self.regrets[candidate].values())


def looks(losses: Losses) -> dict[str, Look]:
    """The looks whose runs are there: the first one; and the second, with those that may still win after the first."""
    if not _is_complete(losses, FIRST):
        return {}
    verdict = decide(losses, FIRST)
    least = verdict.mean_regret(verdict.winner)
    left = [name for name in CANDIDATES if name not in verdict.out and verdict.mean_regret(name) - least < FAR]
    second = SECOND._replace(candidates=tuple(left), default=verdict.winner)
    return {"first": FIRST, **({"second": second} if left and _is_complete(losses, second) else {})}


def decide(losses: Losses, look: Look) -> Verdict:
    """Apply the rule. Of the runs that the look needs, only those of random sets may be missing."""
    regrets = _regrets(losses, look)
    out = {name: reasons for name in look.candidates if (reasons := _worse_than(name, losses, look))}
    alike = {name: CANDIDATES[name].alike for name in look.candidates if name not in out}
    unchecked = [name for name, label in alike.items() if not _has_all(losses, look, label)]
    means = {name: fmean(of_tasks.values()) for name, of_tasks in regrets.items()}
    return Verdict(regrets, out, unchecked, *_winner(means, out, look))


def _is_complete(losses: Losses, look: Look) -> bool:
    """Whether all runs are stored that the look needs: of random sets, those of the winner."""
    if not all(_has_all(losses, look, label) for label in (LORA, PEFT_DEFAULT, *look.candidates)):
        return False
    verdict = decide(losses, look)
    return verdict.winner not in verdict.unchecked


def _has_all(losses: Losses, look: Look, label: str) -> bool:
    """Whether there is a run of a label at each seed of each task."""
    return all(losses.get((task, label), {}).keys() >= {*range(count)} for task, count in look.seeds.items())


def _regrets(losses: Losses, look: Look) -> dict[str, dict[str, float]]:
    means = {
        (task, label): fmean(losses[task, label][seed] for seed in range(count))
        for task, count in look.seeds.items()
        for label in (LORA, *look.candidates)
    }
    best = {task: min(means[task, name] for name in look.candidates) for task in look.seeds}
    return {name: {t: (means[t, name] - best[t]) / means[t, LORA] for t in look.seeds} for name in look.candidates}


def _winner(regrets: Mapping[str, float], out: Collection[str], look: Look) -> tuple[str, str]:
    """What becomes, or stays, the default, by the mean regrets; and why, in one sentence."""
    left = {name: regret for name, regret in regrets.items() if name not in out}
    if not left:
        return look.default, "no candidate is left."
    tied = [name for name, regret in left.items() if regret - min(left.values()) < TIED]
    winner = min(tied, key=lambda name: (CANDIDATES[name].price, left[name]))
    if (
        winner != look.default
        and look.margin is not None
        and (gain := regrets[look.default] - left[winner]) < look.margin
    ):
        return (
            look.default,
            f"{winner} wins by {gain:.4f} of mean regret, less than the {look.margin} that this look asks for.",
        )
    if left[winner] > min(left.values()):
        others = ", ".join(name for name in tied if name != winner)
        return winner, f"{winner} is tied with {others}, and is the cheapest of them."
    if len(left) == 1:
        return winner, f"{winner} is the only candidate that is left."
    return winner, f"{winner} has the smallest mean regret of those that are left."


def _worse_than(name: str, losses: Losses, look: Look) -> list[str]:
    """Where a candidate is significantly worse than random sets of its sizes, or than PEFT's default list."""
    return [
        f"worse than {label} on {task}"
        for task, count in look.seeds.items()
        for label in (CANDIDATES[name].alike, PEFT_DEFAULT)
        if _has_all(losses, Look({task: count}, None), label)
        and excludes_zero(versus := paired(_of(losses, task, name, count), _of(losses, task, label, count)))
        and versus is not None
        and versus["mean"] > 0
    ]


def _of(losses: Losses, task: str, label: str, count: int) -> dict[int, float]:
    return {seed: losses[task, label][seed] for seed in range(count)}
