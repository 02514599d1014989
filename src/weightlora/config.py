"""The settings of one WeightLoRA run, with every rule between them checked on construction."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from .budget import Budget, plan_budgets
from .errors import ConfigError
from .rules import RULES
from .values import check_fraction, check_int, check_keep, check_known, check_share, is_int, is_number, plain, to_bytes

Constraint = Literal["l0", "simplex"]
RankBy = Literal["value", "magnitude"]
SelectMemory = Literal["usual", "low"]
Expand = Literal["none", "random", "qr", "restart"]

DEFAULT_KEEP, DEFAULT_STEPS = 0.25, 0.2
OF_GATES = ("omega_lr", "warmup_steps", "threshold_every", "constraint", "rank_by", "omega_follows_lr")


@dataclass(repr=False)
class WeightLoraConfig:
    """How many adapters to keep, how to choose them, and how to use the freed parameters.

    Args:
        keep: K, the number of adapters to keep (`int`), or a fraction of all n adapters in (0, 1) (`float`). With
            `selection="credit"`, they also have at most K / n of the parameters, unless `keep_parameters` is set.
        keep_parameters: The maximum number of adapter parameters to keep (`int`), or a fraction of the parameters of
            all adapters in (0, 1) (`float`). Adapters are taken by score, and one that no longer fits is skipped; with
            `keep`, the best K that fit. The default is 0.25, or only the best adapter if none fits into a quarter.
            With `"credit"` and `"stoiht"`, the default is `keep=0.25` instead.
        keep_step_time: The maximum time of a training step after the choice, as a fraction in (0, 1) of a step with
            all adapters. Keeps the set with the largest sum of scores that fits; with `keep`, of K adapters. The cost
            of steps is measured on your model before the first step, in one process, on a CPU or a CUDA device.
        keep_memory: The maximum memory of a training step after the choice: weights, gradients, optimizer state and
            activations. A number of bytes, or a text such as `"6GiB"`. Measured like `keep_step_time`.
        select_steps: T, the optimizer steps of the selection phase, warm-up included: a number (`int`), or a fraction
            of the training in (0, 1) (`float`). A Trainer knows how long the training is; in your own loop, pass
            `total_steps` to `WeightLora`. `None` means 0 with `selection="gradient"`, which chooses before the first
            step, and a fifth of the training with other rules. With 0, `"random"` also chooses before the first step.
        probe_batches: How many batches `selection="gradient"` reads before the first step. With gradient
            accumulation, a Trainer reads the batches of this many steps.
        select_memory: `"low"` recomputes activations during the selection phase with the model's own gradient
            checkpointing, so that choosing needs no more memory than training the chosen adapters. Steps of the
            selection phase take a third to two thirds longer; the choice is the same. `selection="gradient"` always
            recomputes. `"usual"` leaves the model as it is.
        warmup_steps: The first steps of the selection phase, in which gates stay at 1 and only collect evidence.
        threshold_every: Project the gates every this many steps. The projection at the end of a round is always done.
        rounds: Reach K in this many disconnects, each of which keeps the same ratio of adapters (or of parameters).
        omega_lr: Step size eta of the gates' gradient step, `omega <- omega - eta * dL/domega`.
        omega_follows_lr: Multiply `omega_lr` by the factor of the user's LR scheduler, at most by 1.
        constraint: `"l0"`: at most K gates differ from 0. `"simplex"`: the gates are also projected onto the
            probability simplex, and those that reach 0 are disconnected (so fewer than K may survive).
        rank_by: What the projection sorts: the gates' `"value"` (the paper's code) or their `"magnitude"`.
        selection: What scores adapters. `"gradient"`: the gradients of the untrained adapters, before the first step.
            `"credit"`: the decrease of the loss due to each adapter's own updates, while training. `"stoiht"`: the
            paper's gates (Algorithm 1). `"random"`: the paper's control, RLoRA. `"auto"`: `"credit"` if
            `select_steps` or `rounds` ask for a choice while training, else `"gradient"`.
        expand: WeightLoRA+ (Algorithm 2), how kept adapters grow. `"none"`; `"random"`: new rows of A, zero columns of
            B; `"qr"`: an orthonormal basis of A's row space, completed orthogonally; `"restart"`: new factors.
        expand_rank: The rank of kept adapters then, or `"budget"`: as high as the removed parameters allow.
        seed: Seed of the random choice and of new factors.
        adapter_name: The PEFT adapter to work on; `None` means the active one.

    Raises:
        ConfigError: If a value breaks a rule. The message names the value, the rule and the remedy.

    Example:
        ```python
        from weightlora import WeightLoraConfig
        WeightLoraConfig()  # the best adapters that fit into a quarter of the parameters, before the first step
        WeightLoraConfig(keep=9, select_steps=200)  # nine adapters, after 200 steps of training
        ```
    """

    keep: int | float | None = None
    keep_parameters: int | float | None = None
    select_steps: int | float | None = None
    probe_batches: int = 4
    select_memory: SelectMemory = "usual"
    warmup_steps: int = 0
    threshold_every: int = 1
    rounds: int = 1
    omega_lr: float = 5.0
    omega_follows_lr: bool = False
    constraint: Constraint = "l0"
    rank_by: RankBy = "value"
    selection: str = "auto"
    expand: Expand = "none"
    expand_rank: int | Literal["budget"] = "budget"
    seed: int = 0
    adapter_name: str | None = None
    keep_step_time: float | None = None
    keep_memory: int | float | str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            setattr(self, field.name, plain(getattr(self, field.name)))
        if self.selection == "auto":
            self.selection = "credit" if self.select_steps or self.rounds != 1 else "gradient"
        for name, value, known in (
            ("constraint", self.constraint, get_args(Constraint)),
            ("rank_by", self.rank_by, get_args(RankBy)),
            ("selection", self.selection, ("auto", *RULES)),
            ("expand", self.expand, get_args(Expand)),
            ("select_memory", self.select_memory, get_args(SelectMemory)),
        ):
            check_known(name, value, known)
        self._check_budget()
        for name in ("warmup_steps", "threshold_every", "rounds", "probe_batches", "seed"):
            check_int(name, getattr(self, name), 0 if name in ("warmup_steps", "seed") else 1)
        self._check_gates()
        self._check_steps()
        self._check_expansion()

    def _check_budget(self) -> None:
        given = {name: getattr(self, name) for name in ("keep_parameters", "keep_step_time", "keep_memory")}
        bounds = {name: value for name, value in given.items() if value is not None}
        if len(bounds) > 1:
            first, second = list(bounds)[:2]
            raise ConfigError(f"{first} and {second} cannot both be set: give one of them.")
        for name, value in bounds.items():
            if self.rounds != 1 and (self.keep is not None or name != "keep_parameters"):
                also = "" if self.keep is None else f"keep={self.keep} and "
                raise ConfigError(
                    f"{also}{name}={value} cannot be reached in rounds={self.rounds}: leave rounds at 1"
                    f"{', or give only one of the two' if also else ''}."
                )
        if self.keep is None and not bounds:
            setattr(self, "keep" if RULES[self.selection].least_steps else "keep_parameters", DEFAULT_KEEP)
        if self.keep is not None:
            check_keep(self.keep)
        if isinstance(self.keep_parameters, float):
            check_fraction("keep_parameters", self.keep_parameters, "parameters")
        elif self.keep_parameters is not None:
            check_int("keep_parameters", self.keep_parameters, 1, or_fraction=True)
        if self.keep_memory is not None:
            to_bytes("keep_memory", self.keep_memory)
        if self.keep_step_time is not None:
            check_share("keep_step_time", self.keep_step_time, "the step time of LoRA on all modules")
        for name, usual, does in (
            ("select_memory", "usual", "recomputes activations, and keep_{} is measured without that"),
            ("expand", "none", "lets adapters grow, and keep_{} is measured before"),
        ):
            if self.resource is not None and (value := getattr(self, name)) != usual:
                raise ConfigError(f"{name}={value!r} {does.format(self.resource)}: drop one of the two.")

    @property
    def resource(self) -> Literal["step_time", "memory"] | None:
        """The budget that has to be measured first: step time, memory or none."""
        if self.keep_step_time is not None:
            return "step_time"
        return None if self.keep_memory is None else "memory"

    @property
    def steps(self) -> int:
        """`select_steps` as a number of steps. Valid after `resolve`, which turns a fraction into a number."""
        return int(self.select_steps or 0)

    def _check_steps(self) -> None:
        rule = RULES[self.selection]
        if self.select_steps is None:
            self.select_steps = 0 if rule.probes else DEFAULT_STEPS
        if rule.probes and self.select_steps:
            raise ConfigError(
                f"select_steps={self.select_steps} has no effect with selection={self.selection!r}, which chooses "
                "before the first step: drop it, or set selection='credit'."
            )
        if isinstance(self.select_steps, float):
            check_fraction("select_steps", self.select_steps, "steps")
            return
        check_int("select_steps", self.select_steps, rule.least_steps, or_fraction=True)
        if self.select_steps == 0 and self.rounds > 1:
            raise ConfigError(
                f"rounds={self.rounds} needs steps: set select_steps and selection='credit', or rounds=1."
            )
        if self.select_steps and self.select_steps - self.warmup_steps < self.rounds:
            raise ConfigError(
                f"select_steps={self.select_steps} leaves {self.select_steps - self.warmup_steps} steps after "
                f"warmup_steps={self.warmup_steps}, too few for rounds={self.rounds}: raise select_steps."
            )

    def _check_expansion(self) -> None:
        if self.expand_rank == "budget":
            return
        if not is_int(self.expand_rank) or self.expand_rank < 1:
            raise ConfigError(f"expand_rank={self.expand_rank!r} must be a whole number of at least 1, or 'budget'.")
        if self.expand == "none":
            raise ConfigError(
                f"expand_rank={self.expand_rank} has no effect with expand='none': drop it, or set expand to 'qr'."
            )

    def _check_gates(self) -> None:
        if not (is_number(self.omega_lr) and 0 < self.omega_lr < math.inf):
            raise ConfigError(f"omega_lr={self.omega_lr!r} is not a valid step size: give a positive number.")
        rule, usual = RULES[self.selection], type(self).__dataclass_fields__
        for has, names, what, other in (
            (rule.has_gates, OF_GATES, "gates", "stoiht"),
            (rule.probes, ("probe_batches",), "the probe", "gradient"),
        ):
            for name in () if has else names:
                if (value := getattr(self, name)) != usual[name].default:
                    raise ConfigError(
                        f"{name}={value!r} is a setting of {what}, and selection={self.selection!r} has none: drop "
                        f"it, or set selection={other!r}."
                    )

    @classmethod
    def paper(cls, plus: bool = False, **overrides: Any) -> "WeightLoraConfig":
        """The gate settings of the authors' public code (arXiv 2506.02724).

        Plain SGD with learning rate 5 on the gates, under the LR schedule of the model; projection by value at every
        step. With `plus`: projection every 5 steps, three rounds (halvings if `keep=0.125`), and QR expansion.

        Args:
            plus: WeightLoRA+ instead of WeightLoRA.
            overrides: Any field of this class.
        """
        settings: dict[str, Any] = {"selection": "stoiht", "omega_lr": 5.0, "omega_follows_lr": True}
        if plus:
            settings |= {"threshold_every": 5, "rounds": 3, "expand": "qr"}
        return cls(**(settings | overrides))

    def resolve(self, total_steps: int | None, earlier: int | None = None) -> "WeightLoraConfig":
        """These settings with `select_steps` as a number of steps.

        Args:
            total_steps: Optimizer steps of the whole training; None if unknown.
            earlier: The number of steps in a run that is resumed; it replaces a fraction.

        Raises:
            ConfigError: If `select_steps` does not fit the training's length, or `total_steps` is no whole number.
        """
        if total_steps is not None:
            check_int("total_steps", plain(total_steps), 0)
        if not isinstance(self.select_steps, float):
            if total_steps is not None and self.steps > total_steps:
                raise ConfigError(
                    f"select_steps={self.select_steps} is longer than the training of {total_steps} steps: lower it "
                    f"(a fifth of the training, {max(2, total_steps // 5)}, is a good start), or raise max_steps."
                )
            return self
        if earlier is not None:
            return replace(self, select_steps=earlier)
        if total_steps is None:
            raise ConfigError(
                f"select_steps={self.select_steps} is a fraction of the training, whose length is not known here: "
                "pass total_steps=..., or a number of steps."
            )
        least = max(RULES[self.selection].least_steps, self.warmup_steps + self.rounds)
        if total_steps < least:
            raise ConfigError(f"total_steps={total_steps} leaves no steps to select in: train {least} or more.")
        return replace(self, select_steps=max(least, round(self.select_steps * total_steps)))

    def __repr__(self) -> str:
        """The fields that differ from their default."""
        usual: dict[str, Any] = {field.name: field.default for field in fields(self)}
        rule = RULES[self.selection]
        budget = (DEFAULT_KEEP, None) if rule.least_steps else (None, DEFAULT_KEEP)
        if self.resource is None and (self.keep, self.keep_parameters) == budget:
            usual["keep"], usual["keep_parameters"] = budget
        usual["select_steps"] = 0 if rule.probes else DEFAULT_STEPS
        while_training = self.select_steps != usual["select_steps"] or self.rounds != 1
        usual["selection"] = "credit" if while_training else "gradient"
        given = {name: value for name, default in usual.items() if (value := getattr(self, name)) != default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def budget_for(self, sizes: list[int]) -> Budget:
        """What each round keeps of adapters with so many parameters.

        Raises:
            ConfigError: If the budget has no room for the smallest adapters, or `keep` is larger than their number.
        """
        number = None if self.keep is None else self.number_to_keep(len(sizes))
        given = self.keep_parameters if self.resource is None else sum(sizes)  # the resource is measured
        most = int(round(given * sum(sizes), 6)) if isinstance(given, float) else given  # 0.7 * 10 is below 7
        if number is None and given == DEFAULT_KEEP and (most or 0) < min(sizes):
            most = max(sizes)  # which has room for any one adapter, and never for two
        return Budget(tuple(plan_budgets(sizes, number, most, self.rounds, RULES[self.selection].shares_parameters)))

    def number_to_keep(self, n: int) -> int:
        """K for a model with `n` adapters; a fraction is rounded, and gives 1 at the least.

        Raises:
            ConfigError: If `keep` is larger than `n`, or the budget is one of parameters.
        """
        if self.keep is None:
            raise ConfigError("keep is not given, so the number of adapters is not fixed: the other bound decides.")
        if isinstance(self.keep, float):
            return max(1, round(self.keep * n))
        if self.keep > n:
            raise ConfigError(f"keep={self.keep} is more than the model's {n} LoRA adapters: keep {n} or fewer.")
        return self.keep


def as_config(config: WeightLoraConfig | None) -> WeightLoraConfig:
    """A copy of the settings that were given, checked again, or the defaults; a `ConfigError` for another type."""
    if config is not None and not isinstance(config, WeightLoraConfig):
        raise ConfigError(f"config is a {type(config).__name__}: pass a WeightLoraConfig.")
    return WeightLoraConfig() if config is None else replace(config)  # what is assigned to them later is another run's
