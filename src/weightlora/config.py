"""The settings of one WeightLoRA run, with every rule between them checked on construction."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

Selection = Literal["credit", "stoiht", "random"]
Constraint = Literal["l0", "simplex"]
RankBy = Literal["value", "magnitude"]
Expand = Literal["none", "random", "qr", "restart"]

DEFAULT_KEEP = 0.25


@dataclass
class WeightLoraConfig:
    """How many adapters to keep, how to choose them, and what to do with what that frees.

    Args:
        keep: The budget K: a number of adapters (`int`), or a fraction of them in (0, 1) (`float`). `None` means 0.25,
            unless `keep_parameters` is given. Credit adds up over parameters, so with `selection="credit"` the K
            adapters have at most K / n of the parameters, too; `keep_parameters` sets another bound.
        keep_parameters: The most trainable adapter parameters that may survive: K adapters within this bound, or
            without `keep`, as many as fit, best first.
        select_steps: T, the optimizer steps of the selection phase, warm-up included. 0 is allowed for
            `selection="random"` only, and then the choice is made before the first step.
        warmup_steps: The first steps of the selection phase, in which gates stay at 1 and only collect evidence.
        threshold_every: Project the gates every this many steps. The projection at the end of a round is always done.
        rounds: Reach K in this many disconnects, each of which keeps the same ratio of the adapters.
        omega_lr: Step size eta of the gates' gradient step, `omega <- omega - eta * dL/domega`.
        omega_follows_lr: Multiply `omega_lr` by the factor that the user's LR scheduler currently applies.
        constraint: `"l0"`: at most K gates differ from 0. `"simplex"`: the gates are also projected onto the
            probability simplex, and those that reach 0 are disconnected (so fewer than K may survive).
        rank_by: What the projection sorts: the gates' `"value"` (the paper's code) or their `"magnitude"`.
        selection: `"credit"`: the loss decrease that each adapter's own updates bought (no gates). `"stoiht"`: the
            paper's gates under stochastic iterative hard thresholding. `"random"`: the control, RLoRA.
        expand: WeightLoRA+: how survivors grow. `"none"`; `"random"`: fresh rows of A, zero columns of B; `"qr"`: an
            orthonormal basis of A's row space, completed orthogonally; `"restart"`: fresh factors (the control).
        expand_rank: The rank survivors grow to, or `"budget"`: spend what the disconnected adapters freed, never more.
        seed: Of the random choice and of the fresh factors.
        adapter_name: Which PEFT adapter to work on; `None` means the active one.

    Raises:
        ValueError: If a value breaks a rule. The message names the value, the rule and the remedy.
    """

    keep: int | float | None = None
    keep_parameters: int | None = None
    select_steps: int = 200
    warmup_steps: int = 0
    threshold_every: int = 1
    rounds: int = 1
    omega_lr: float = 5.0
    omega_follows_lr: bool = False
    constraint: Constraint = "l0"
    rank_by: RankBy = "value"
    selection: Selection = "credit"
    expand: Expand = "none"
    expand_rank: int | Literal["budget"] = "budget"
    seed: int = 0
    adapter_name: str | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep_parameters is not None and self.rounds != 1:
            raise ValueError(
                f"keep={self.keep} and keep_parameters={self.keep_parameters} cannot both be approached in "
                f"rounds={self.rounds}: leave rounds at 1, or give only one of the two."
            )
        if self.keep is None and self.keep_parameters is None:
            self.keep = DEFAULT_KEEP
        if self.keep is not None:
            _check_keep(self.keep)
        if self.keep_parameters is not None:
            _check_int("keep_parameters", self.keep_parameters, 1)
        for name, value, known in (
            ("constraint", self.constraint, get_args(Constraint)),
            ("rank_by", self.rank_by, get_args(RankBy)),
            ("selection", self.selection, get_args(Selection)),
            ("expand", self.expand, get_args(Expand)),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not known: choose one of {', '.join(map(repr, known))}.")
        for name, smallest in (("warmup_steps", 0), ("threshold_every", 1), ("rounds", 1)):
            _check_int(name, getattr(self, name), smallest)
        self._check_steps()
        self._check_gates()
        _check_int("seed", self.seed, 0)
        self._check_expansion()

    def _check_steps(self) -> None:
        # The first gate gradient is 0 because B = 0, so gates need a second step; credit has evidence after one.
        least = {"random": 0, "credit": 1, "stoiht": 2}[self.selection]
        _check_int("select_steps", self.select_steps, least)
        if self.select_steps == 0 and (self.rounds > 1 or self.warmup_steps):
            raise ValueError("select_steps=0 chooses before the first step: leave rounds at 1 and warmup_steps at 0.")
        if self.select_steps and self.select_steps - self.warmup_steps < self.rounds:
            raise ValueError(
                f"select_steps={self.select_steps} leaves {self.select_steps - self.warmup_steps} steps after "
                f"warmup_steps={self.warmup_steps}, too few for rounds={self.rounds}: raise select_steps."
            )

    def _check_expansion(self) -> None:
        if self.expand_rank == "budget":
            return
        if not isinstance(self.expand_rank, int) or isinstance(self.expand_rank, bool) or self.expand_rank < 1:
            raise ValueError(f"expand_rank={self.expand_rank!r} must be a whole number of at least 1, or 'budget'.")
        if self.expand == "none":
            raise ValueError(
                f"expand_rank={self.expand_rank} has no effect with expand='none': drop it, or set expand to 'qr'."
            )

    def _check_gates(self) -> None:
        number = isinstance(self.omega_lr, int | float) and not isinstance(self.omega_lr, bool)
        if not (number and math.isfinite(self.omega_lr) and self.omega_lr > 0):
            raise ValueError(f"omega_lr={self.omega_lr!r} is no step size: give a positive number.")
        if self.selection == "stoiht":
            return
        for name in ("warmup_steps", "threshold_every", "constraint", "rank_by", "omega_follows_lr"):
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default:
                raise ValueError(
                    f"{name}={value!r} is a setting of gates, and selection={self.selection!r} has none: "
                    "drop it, or set selection='stoiht'."
                )

    @classmethod
    def paper(cls, plus: bool = False, **overrides: Any) -> "WeightLoraConfig":
        """The settings of the authors' public code (arXiv 2506.02724), as far as they concern the gates.

        Plain SGD with learning rate 5 on the gates, under the LR schedule of the model; projection by value at every
        step. With `plus`, WeightLoRA+: three halvings, projection every 5 steps, and QR expansion.

        Args:
            plus: WeightLoRA+ instead of WeightLoRA.
            overrides: Any field of this class.
        """
        settings: dict[str, Any] = {"selection": "stoiht", "omega_lr": 5.0, "omega_follows_lr": True}
        if plus:
            settings |= {"threshold_every": 5, "rounds": 3, "expand": "qr"}
        return cls(**(settings | overrides))

    def number_to_keep(self, n: int) -> int:
        """K for a model with `n` adapters; a fraction is rounded, and gives 1 at the least.

        Raises:
            ValueError: If `keep` is larger than `n`, or the budget is one of parameters.
        """
        if self.keep is None:
            raise ValueError(f"keep_parameters={self.keep_parameters} does not fix the number of adapters.")
        if isinstance(self.keep, float):
            return max(1, round(self.keep * n))
        if self.keep > n:
            raise ValueError(f"keep={self.keep} is more than the model's {n} LoRA adapters: keep {n} or fewer.")
        return self.keep


def _check_int(name: str, value: object, smallest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {smallest}.")


def _check_keep(keep: object) -> None:
    if isinstance(keep, float):
        if not 0 < keep < 1:
            raise ValueError(f"keep={keep} is not a fraction in (0, 1): for a number of adapters pass an int.")
    elif not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
        raise ValueError(
            f"keep={keep!r} must be a number of adapters of at least 1, or a fraction in (0, 1): "
            "PEFT cannot save or load a LoRA model without adapters."
        )
