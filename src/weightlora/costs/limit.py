"""A budget of step time or memory: measured before the first step, and then what the choice is bounded by."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import compress, islice
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import LoraAdapter
from ..adapters.surgery import free_inputs_
from ..budget import Budget
from ..config import WeightLoraConfig
from ..engines import processes
from ..errors import ConfigError, DataError, TrainingError
from ..loaders import same_batches
from ..probe import Loss, check_loss, check_read_again, copies_of, undisturbed
from ..restoring import same_random_numbers
from ..tensors import tensors_in
from ..values import to_bytes
from .frontier import frontier, in_words
from .measuring import measure
from .model import Costs
from .packing import best_within, cheapest

LOOKED_AT = 4
"""Batches that are looked at. The largest of them is the one with which steps are measured."""


class CostLimit:
    """The bound that `keep_step_time` or `keep_memory` sets; it takes the place of a `Budget`.

    Args:
        config: Of the run.
        budget: Has the number of adapters, if that is bounded, too.
        model: Of the run.

    Attributes:
        costs: None until they are measured.

    Raises:
        ConfigError: If the model is trained by several processes, or compiled.
    """

    def __init__(self, config: WeightLoraConfig, budget: Budget, model: nn.Module) -> None:
        assert config.resource is not None
        self._resource, self._config, self._number = config.resource, config, budget.rounds[0][0]
        self._setting = f"keep_{self._resource}"
        self._check_runs_alone(not processes.has_group())
        self.check_not_compiled(model)
        self.costs: Costs | None = None

    def check_not_compiled(self, model: nn.Module) -> None:
        """Raise a `ConfigError` if a model, or a part of it, is compiled: it would not see adapters switched off."""
        parts = model.modules()
        self._check_runs_alone(
            not any(hasattr(p, "_orig_mod") or getattr(p, "_compiled_call_impl", None) is not None for p in parts)
        )

    def _check_runs_alone(self, alone: bool) -> None:
        if not alone:
            raise ConfigError(
                f"{self._setting} measures steps in one process, without torch.compile: choose like this, and "
                "train the chosen modules as target_modules."
            )

    def best(self, score: Tensor, sizes: list[int], round_: int) -> Tensor:
        """Mask of the adapters with the largest scores within the bound; see `best_within`.

        Raises:
            TrainingError: The costs are not measured yet.
        """
        costs = self.check_measured()
        found = best_within(costs, score, self.amount(costs), self._number)
        assert found is not None  # something fits, which was checked as they were measured
        return found

    def check_measured(self) -> Costs:
        """The costs; raise a `TrainingError` if they are not measured yet."""
        if self.costs is None:
            raise TrainingError(
                f"{self._setting} needs to know what steps cost: call probe(batches) before the first step."
            )
        return self.costs

    def amount(self, costs: Costs) -> float:
        """The bound in the unit of the costs."""
        if self._resource == "memory":
            return to_bytes(self._setting, self._config.keep_memory)
        assert self._config.keep_step_time is not None
        return self._config.keep_step_time * costs.whole

    def to_dict(self) -> dict[str, Any] | None:
        """The costs as values that JSON can hold; None if they are not measured."""
        return None if self.costs is None else asdict(self.costs)

    def restore(self, values: dict[str, Any] | None) -> None:
        """Take the costs of an earlier run; the inverse of `to_dict`. They were checked where the state was read."""
        self.costs = None if values is None else Costs(**values)

    def in_words(self, kept: list[bool]) -> str:
        """One sentence about what a choice costs; empty if the costs are not measured."""
        if self.costs is None:
            return ""
        return in_words(self._resource, self.costs.predict(kept), self.amount(self.costs), self.costs.whole)

    def describe(self, kept: list[bool], scores: list[float]) -> dict[str, Any] | None:
        """What a choice costs, and what other budgets would keep; None if the costs are not measured."""
        if self.costs is None:
            return None
        return {
            "resource": self._resource,
            "budget": self.amount(self.costs),
            "predicted": self.costs.predict(kept),
            "whole": self.costs.whole,
            "score": sum(compress(scores, kept)),
            "frontier": frontier(self.costs, scores, self._number),
        }

    def measure(
        self, model: nn.Module, adapters: list[LoraAdapter], batches: Iterable[Any], loss: Loss | None, number: int
    ) -> list[Any]:
        """Measure what steps cost with the largest of a few batches, unless that is known.

        Returns:
            The first `number` batches, or some more, for who wants to read them again.

        Raises:
            ConfigError: Nothing that the settings allow fits into the bound.
            DataError: There is no batch, or it gives no loss.
        """
        with same_random_numbers(model), same_batches(batches), processes.together("reading the first batches"):
            looked_at = list(islice(batches, max(LOOKED_AT, number)))
            if not looked_at:
                raise DataError(f"{self._setting} got no batch to measure a step with: give at least one.")
        check_read_again(model, batches, copies_of(looked_at[0]))
        if self.costs is not None:
            return looked_at
        self._check_runs_alone(processes.world_size() == 1)
        batch = max(looked_at[:LOOKED_AT], key=_entries)
        remedy = "give batches with labels, or probe(batches, loss=...)"
        with undisturbed(model, loss, recompute=False) as loss_of:
            free_inputs_(model)  # as after the choice; with all other hooks, they are back afterwards
            costs = measure(
                self._resource,
                model,
                adapters,
                lambda: check_loss(loss_of(batch), "the batch that is measured", remedy),
            )
        self._check(costs)
        self.costs = costs
        return looked_at

    def _check(self, costs: Costs) -> None:
        if best_within(costs, torch.zeros(len(costs.own), device="cpu"), self.amount(costs), self._number) is not None:
            return
        least = costs.predict(cheapest(costs, self._number or 1))
        given = getattr(self._config, self._setting)
        what = "one adapter" if self._number in (None, 1) else f"the {self._number} adapters that cost least"
        raise ConfigError(
            f"{self._setting}={given!r} is too small: a step with {what} takes {costs.shown(least)}. Raise it"
            f"{'' if self._number in (None, 1) else ', or keep fewer'}."
        )


def _entries(batch: Any) -> int:
    """Entries of the tensors in a batch."""
    return sum(tensor.numel() for tensor in tensors_in(batch))
