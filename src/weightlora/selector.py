"""`WeightLora`, the controller: it watches a training run, chooses K adapters, and leaves a plain PEFT model."""

import copy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import budget
from . import state as checkpoint
from .adapters import LoraAdapter, expansion, find_adapters, surgery
from .config import WeightLoraConfig
from .engines.distributed import (
    average,
    check_agreement,
    forget_,
    is_sharded,
    note_whole_,
    refuse_fixed,
    same_everywhere,
)
from .optimizers import check_holds, unwrap_optimizer
from .rules import make_rule


class WeightLora:
    """Selects K of the n LoRA adapters of a model while it is being trained (WeightLoRA, arXiv 2506.02724).

    Call `step()` once per optimizer step, after `optimizer.step()` and before `optimizer.zero_grad()`. After the last
    selection step the other adapters are gone from the model, the optimizer and memory, and `step()` does nothing.

    Args:
        model: A PEFT model with LoRA adapters, wrapped (`torch.compile`) or not.
        optimizer: Holds the adapters' parameters; a torch optimizer, or Accelerate's wrapper around one.
        config: The settings.
        state: From the `state_dict()` of an earlier run, which then goes on here. The model is built as in that run,
            or `restore()` has brought it to the structure of the state.
        in_place: Off, what is not chosen only falls silent, and the caller takes it out between two runs (as the
            Trainer mixin does under FSDP1).

    Attributes:
        adapters: Those still on the model, in model order.
        names: All n adapters in model order, as PEFT's config names them.
        kinds: Whether each name is of a `"module"` or of a `"parameter"`.
        sizes: Their parameters at the start, by name.
        step_count: Optimizer steps seen in the selection phase.
        history: A dict per selection step: `step`, `phase`, `active` (gates that are not 0), `omega` and `score` (n
            floats each in the order of `names`); and one per decision: `step`, `kept`, `ranks`.

    Raises:
        ValueError: If the model, the optimizer and the settings do not fit one another.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        config: WeightLoraConfig | None = None,
        state: dict[str, Any] | None = None,
        in_place: bool = True,
    ) -> None:
        refuse_fixed(model, optimizer) if in_place else note_whole_(model)
        self.in_place, self.silent = in_place, list[LoraAdapter]()
        self.model, self.optimizer = model, unwrap_optimizer(optimizer)
        self.config = config or WeightLoraConfig()
        self.adapters: list[LoraAdapter] = find_adapters(model, self.config.adapter_name)
        self.adapter_name = self.adapters[0].adapter_name
        check_holds(self.optimizer, [(a.name, p) for a in self.adapters for p in a.parameters if p.requires_grad])
        start = checkpoint.start_of(self.adapters) if state is None else checkpoint.check_state(state)
        self.names, self.kinds, self.sizes = list(start["names"]), dict(start["kinds"]), dict(start["sizes"])
        self._start_ranks = dict(start["start_ranks"])
        if self.config.expand != "none":
            expansion.check_growth(self.adapters, self.config.expand_rank)
            if is_sharded(model) or not in_place:
                raise ValueError(f"expand={self.config.expand!r} cannot grow what FSDP has sharded: use 'none'.")
        config = self.config
        number = None if config.keep is None else config.number_to_keep(len(self.names))
        share = config.selection == "credit"
        sizes = list(self.sizes.values())
        self._budgets = budget.plan_budgets(sizes, number, config.keep_parameters, config.rounds, share)
        self._ends = budget.round_ends(self.config.warmup_steps, self.config.select_steps, self.config.rounds)
        self._round = 0
        self._last_scores: dict[str, float] = {}  # of the disconnected
        self.step_count = 0
        self.history: list[dict[str, Any]] = []
        self._rule = make_rule(self.adapters, self.optimizer, self.config)
        self._stepped = False  # a step that an AMP scaler skips never reaches the optimizer
        self._step_hook = self.optimizer.register_step_pre_hook(self._mark_step)
        if state is not None:
            self.load_state_dict(state)
        elif self.config.select_steps == 0:
            self.finish()

    @property
    def phase(self) -> budget.Phase:
        """Phase of the next step: `"warmup"`, `"select"`, or `"train"` once the choice is final."""
        if self._round == self.config.rounds:
            return "train"
        step = min(self.step_count + 1, self.config.select_steps)
        return budget.phase_at(step, self.config.warmup_steps, self.config.select_steps)

    @property
    def omega(self) -> dict[str, float]:
        """Every adapter's gate, 0 for the disconnected; without gates, 1 and 0."""
        live = dict(zip((a.name for a in self.adapters), self._rule.omega.tolist(), strict=True))
        return {name: live.get(name, 0.0) for name in self.names}

    @property
    def scores(self) -> dict[str, float]:
        """What the choice ranks adapters by: gates, accumulated credit, or random numbers; their last ones."""
        live = dict(zip((a.name for a in self.adapters), self._rule.score.tolist(), strict=True))
        return {name: live.get(name, self._last_scores.get(name, 0.0)) for name in self.names}

    @property
    def kept(self) -> list[str]:
        """Names of the adapters whose gate is not 0, in model order."""
        return [name for name, omega in self.omega.items() if omega != 0]

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of every adapter that is still on the model."""
        return {adapter.name: adapter.rank for adapter in self.adapters}

    def step(self, grad_scale: float = 1.0) -> None:
        """Take in one optimizer step; at the end of a round, disconnect.

        Args:
            grad_scale: The AMP loss scale that the backward pass ran under (`scaler.get_scale()` before
                `scaler.update()`). A step that the scaler skipped is skipped here too.

        Raises:
            ValueError: If there was no backward pass, or a gradient is NaN or infinite. Nothing was changed then.
        """
        self.observe(grad_scale)
        self.advance()

    def observe(self, grad_scale: float = 1.0) -> None:
        """The first half of `step()`: read gradients, move and project the gates. Changes no structure."""
        phase = self.phase
        if phase == "train":
            return
        evidence = self._rule.take(grad_scale)
        evidence = None if evidence is None else average(evidence)
        stepped, self._stepped = self._stepped, False
        if evidence is None or not stepped:
            if grad_scale != 1.0:
                return
            raise ValueError("the optimizer has not stepped since the last step(): call it after optimizer.step().")
        if grad_scale != 1.0 and not evidence.isfinite().all():
            return
        if not evidence.isfinite().all():
            worst = int((~evidence.isfinite()).nonzero()[0])
            raise ValueError(
                f"the evidence on adapter {self.adapters[worst].name!r} is {float(evidence[worst])} in step "
                f"{self.step_count + 1}: training has diverged, lower the learning rate (history holds the last good "
                "gates)."
            )
        step = self.step_count + 1
        projects = budget.thresholds(step, self.config.warmup_steps, self.config.threshold_every)
        self._rule.update(evidence, phase == "warmup", self._project if projects else None)
        self.step_count = step
        omega = list(self.omega.values())
        self.history.append(
            {
                "step": step,
                "phase": phase,
                "active": sum(gate != 0 for gate in omega),
                "omega": omega,
                "score": list(self.scores.values()),
            }
        )

    def _mark_step(self, optimizer: Optimizer, *_: Any) -> None:
        # Fused optimizers are called on an overflow too, and are told to do nothing by this attribute.
        self._stepped = not bool(getattr(optimizer, "found_inf", False))

    def advance(self) -> None:
        """The second half of `step()`: where a round is over, disconnect, expand, and after the last one, finish."""
        while self._round < self.config.rounds and self.step_count >= self._ends[self._round]:
            self._decide()

    def finish(self) -> None:
        """Decide now, on the evidence there is. Does nothing once the choice is final.

        Raises:
            ValueError: If there is no evidence yet.
        """
        while self._round < self.config.rounds:
            self._decide()

    def _decide(self) -> None:
        """End a round: the forced projection, the disconnect and the expansion; after the last, fold the gates."""
        score = self._rule.score = same_everywhere(self._rule.score)
        keep = self._best(score)
        if not keep.all() and (score == score[0]).all():
            raise ValueError(
                f"all adapters score the same after {self.step_count} steps, so there is nothing to choose by: "
                "train for more steps before the decision."
            )
        if self.config.selection == "stoiht":
            self._rule.score = self._rule.omega = self._project(score, keep)
            if self.config.constraint == "simplex":  # whatever reaches 0 goes, even within the budget
                keep = self._rule.omega != 0
        check_agreement([adapter.name for adapter, kept in zip(self.adapters, keep.tolist(), strict=True) if kept])
        self._round += 1
        self._keep(keep)
        if self.config.expand != "none":
            generator = torch.Generator().manual_seed(self.config.seed * 1000 + self._round)
            for adapter, rank in zip(self.adapters, self._next_ranks(), strict=True):
                expansion.expand_(adapter, rank, self.config.expand, self.optimizer, generator)
        if self._round == self.config.rounds:
            self._close()
            for adapter, omega in zip(self.adapters, self._rule.omega.tolist(), strict=True):
                surgery.fold_gate_(adapter, omega)
        surgery.describe_(self.model, self.adapter_name)
        surgery.free_inputs_(self.model)
        forget_(self.model)
        self.history.append({"step": self.step_count, "kept": self.kept, "ranks": self.ranks})

    def _close(self) -> None:
        """Leave nothing of ours on the model or the optimizer."""
        self._rule.close()
        self._step_hook.remove()

    def _project(self, values: Tensor, keep: Tensor | None = None) -> Tensor:
        """Project gates onto the constraint; at a decision onto the given support, which simplex gates lack before."""
        if self.config.constraint == "l0":
            return torch.where(self._best(values) if keep is None else keep, values, 0.0)
        keep = torch.ones_like(values, dtype=torch.bool) if keep is None else keep
        return torch.zeros_like(values).masked_scatter(keep, budget.project_simplex(values[keep]))

    def _best(self, score: Tensor) -> Tensor:
        """Mask of the adapters that the present round's budget keeps."""
        ranked = score.abs() if self.config.rank_by == "magnitude" else score
        number, parameters = self._budgets[self._round]
        sizes = [self.sizes[adapter.name] for adapter in self.adapters]
        if number is not None:
            return budget.top_k_within(ranked, number, sizes, parameters)
        # What cannot fit in the end goes first, or it could crowd out all that can.
        last = self._budgets[-1][1]
        return budget.top_by_parameters(ranked, [s if s <= last else parameters + 1 for s in sizes], parameters)

    def _keep(self, mask: Tensor) -> None:
        self._last_scores = self.scores
        losers = [adapter for adapter, kept in zip(self.adapters, mask.tolist(), strict=True) if not kept]
        self.adapters = [adapter for adapter, kept in zip(self.adapters, mask.tolist(), strict=True) if kept]
        self._rule.keep(mask)
        if self.in_place:
            surgery.disconnect_(self.model, losers, self.optimizer)
        else:
            surgery.silence_(losers, self.optimizer)
            self.silent += losers

    def _next_ranks(self) -> list[int]:
        """Ranks after the present round; on the way to a given rank, the same ratio each round."""
        target, share = self.config.expand_rank, self._round / self.config.rounds
        if isinstance(target, str):
            return expansion.ranks_for_budget(self.adapters, sum(self.sizes.values()))
        ranks = [round(self._start_ranks[a.name] ** (1 - share) * target**share) for a in self.adapters]
        return [expansion.clip_rank(adapter, rank) for adapter, rank in zip(self.adapters, ranks, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything the rest of the selection depends on, as values that JSON can hold."""
        return copy.deepcopy(
            {
                "format": checkpoint.STATE_FORMAT,
                "config": asdict(self.config),
                "names": self.names,
                "kinds": self.kinds,
                "sizes": self.sizes,
                "start_ranks": self._start_ranks,
                "step_count": self.step_count,
                "round": self._round,
                "omega": self.omega,
                "scores": self.scores,
                "ranks": self.ranks,
                "scalings": {adapter.name: adapter.scaling for adapter in self.adapters},
                "silent": [adapter.name for adapter in self.silent],
                "history": self.history,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the model, its optimizer and this controller to where the state was taken.

        Disconnects, ranks and optimizer groups are restored, so that the model's and the optimizer's own states load
        after it; then the run goes on bit for bit.

        Args:
            state: From `state_dict()`; it is not changed.

        Raises:
            ValueError: If this controller has made steps, or the state is of another format, config or model.
        """
        if self.step_count:
            raise ValueError(f"this selection has made {self.step_count} steps: load a state into a fresh one.")
        checkpoint.check_config(checkpoint.check_state(state), self.config)
        self.step_count, self._round = state["step_count"], state["round"]
        self.history = copy.deepcopy(state["history"])
        self._rule.keep(torch.tensor([adapter.name in state["ranks"] for adapter in self.adapters]))
        self.adapters = checkpoint.bring_to_(self.model, self.adapters, state, self.optimizer)
        self._last_scores = dict(state["scores"])
        score, omega = ([state[what][adapter.name] for adapter in self.adapters] for what in ("scores", "omega"))
        self._rule.restore(torch.tensor(score, dtype=torch.float64), torch.tensor(omega, dtype=torch.float64))
        if self._round == self.config.rounds:
            self._close()
