"""`WeightLora`, the controller: it chooses adapters before or during a training, and leaves a plain PEFT model."""

import logging
import os
from collections.abc import Iterable
from functools import partial
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import budget
from .adapters import LoraAdapter, expansion, find_adapters, outcome, surgery
from .checkpoint import bring_to_, check_resumes
from .config import WeightLoraConfig, as_config
from .costs import CostLimit
from .engines import Engine, engine_for, is_first
from .errors import StateError
from .fresh import warn_of_unsaved
from .guard import StepGuard, refuse_unasked, refuse_unprobed
from .optimizers import check_holds, check_optimizer
from .probe import Loss, gather, number_to_read
from .recompute import gathering
from .rules import RULES, check_finite
from .run import RunDirectory
from .state import State
from .summary import Described
from .values import check_scale


class WeightLora(Described):
    """Chooses which of the n LoRA adapters of a model to keep, and removes the others (WeightLoRA, arXiv 2506.02724).

    By default, call `probe()` with a few batches before the first step: it chooses at once. With `select_steps`, call
    `step()` once per optimizer step instead, after `optimizer.step()` and before `optimizer.zero_grad()`. After the
    choice, the other adapters are gone from the model, the optimizer and memory, and `step()` changes nothing.

    Args:
        model: A PEFT model with LoRA adapters, wrapped (`torch.compile`, DDP) or not.
        optimizer: Holds the adapters' parameters; a torch optimizer, or Accelerate's wrapper around one.
        config: The settings; `None` means `WeightLoraConfig()`.
        state: The `state_dict()` of an earlier run, to continue it on a model built in the same way, or restored.
        total_steps: Optimizer steps of the whole training. Needed if `config.select_steps` is a fraction.
        engine: How adapters are removed from what wraps the model; `None` detects it.
        run_dir: Directory to which the choice and the history are written during the run.

    Attributes:
        adapters, names: Those still on the model; the names of all n in model order, as PEFT's config has them.
        kinds, sizes, start_ranks: By name: `"module"` or `"parameter"`, its parameters, and its rank at the start.
        step_count, rounds_over: Optimizer steps seen in the selection phase, and rounds that ended with a decision.
        guard: Refuses optimizer steps before `probe()`, and steps with NaN or infinite gradients.
        limit: The measured bound that `keep_step_time` or `keep_memory` sets; else None.
        has_gates: Whether the rule multiplies adapters by gates.
        history: A dict per step (0 is the probe): `step`, `phase`, `active` (gates that are not 0), `score` and, with
            gates, `omega` (n floats, ordered as `names`); one per decision: `step`, `kept`, `ranks`. Empty on resume.

    Raises:
        WeightLoraError: If the model, the optimizer, the settings and the state do not fit one another.

    Example:
        ```python
        selector = WeightLora(model, optimizer, WeightLoraConfig(keep_parameters=0.25))
        selector.probe(loader)  # chooses
        for batch in loader:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ```
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        config: WeightLoraConfig | None = None,
        state: dict[str, Any] | None = None,
        total_steps: int | None = None,
        engine: Engine | None = None,
        run_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._given = as_config(config)
        check_optimizer(optimizer, RULES[self._given.selection].least_steps > 0)
        saved = None if state is None else State.from_dict(state)
        self.config = self._given.resolve(total_steps, None if saved is None else saved.config["select_steps"])
        self.engine = engine or engine_for(model, optimizer)
        self.engine.attach(model)
        self.model, self.optimizer = model, self.engine.optimizer_of(optimizer)
        self.adapters: list[LoraAdapter] = find_adapters(model, self.config.adapter_name)
        self.adapter_name = self.adapters[0].adapter_name
        check_resumes(saved, self.config, self.adapters)  # before anything is attached
        check_holds(self.optimizer, [(a.name, p) for a in self.adapters for p in a.parameters if p.requires_grad])
        start = self._start = self.engine.start = saved or State.at_start(self.config, self.adapters)
        self.names, self.kinds, self.sizes = list(start.names), start.column("kinds"), start.column("sizes")
        self.start_ranks: dict[str, int] = start.column("start_ranks")
        if self.config.expand != "none":
            expansion.check_growth(self.adapters, self.config.expand_rank, self.engine.can_grow)
        self._budget = self.config.budget_for(list(self.sizes.values()))
        self.limit = CostLimit(self.config, self._budget, model) if self.config.resource else None
        self._rule = RULES[self.config.selection](self.adapters, self.optimizer, self.config)
        self.has_gates = self._rule.has_gates
        self._gathering = gathering(model, self.config.select_memory, self._rule.hooks)  # until the last decision
        self.rounds_over = self.step_count = 0
        self._last_scores, self.history = dict[str, float](), list[dict[str, Any]]()  # scores of the disconnected
        self.run = RunDirectory(run_dir) if run_dir and is_first() else None
        self.guard = StepGuard(self.optimizer, model.named_parameters, self.engine.average)
        self._rule.hooks.append(self.optimizer.register_step_pre_hook(partial(refuse_unasked, self)))
        self._rule.lasting.append(self.guard.handle)
        self._begin() if saved is None else self._restore(saved)

    def _begin(self) -> None:
        self._rule.warn_of_few_steps(self.config.steps)
        warn_of_unsaved(self.model)
        if self.run is not None:
            self.run.begin(self)
        if not self.needs_probe:
            self.advance()

    @property
    def phase(self) -> budget.Phase:
        """Phase of the next step: `"warmup"`, `"select"`, or `"train"` once the choice is final."""
        config = self.config
        unless_final = budget.phase_at(min(self.step_count + 1, config.steps), config.warmup_steps, config.steps)
        return "train" if self.rounds_over == config.rounds else unless_final

    @property
    def omega(self) -> dict[str, float]:
        """The gate of every adapter, 0 if it was removed. Without gates, 1 if it is kept and 0 if not."""
        live = dict(zip((a.name for a in self.adapters), self._rule.omega.tolist(), strict=True))
        return {name: live.get(name, 0.0) for name in self.names}

    @property
    def scores(self) -> dict[str, float]:
        """The score of every adapter, by which the rule ranks them. A removed adapter keeps its last score."""
        live = dict(zip((a.name for a in self.adapters), self._rule.score.tolist(), strict=True))
        return {name: live.get(name, self._last_scores.get(name, 0.0)) for name in self.names}

    @property
    def needs_probe(self) -> bool:
        """Whether `probe()` has to be called before the first step."""
        return self.phase != "train" and (self._rule.probes or (self.limit is not None and self.limit.costs is None))

    def probe(self, batches: Iterable[Any], loss: Loss | None = None, per_step: int = 1) -> None:
        """Read the gradients of a few batches before the first step. Does nothing once the choice is final.

        With `selection="gradient"`, this makes the choice. With a budget of step time or memory, it first measures
        what steps cost. Training then sees the same batches and random numbers as without a probe.

        Args:
            batches: The batches of the first `probe_batches` steps are read. Each process passes its own.
            loss: Maps a batch to its loss, a scalar. `None` uses `model(**batch).loss`, so batches need labels.
            per_step: Number of batches in a step, with gradient accumulation.

        Raises:
            ConfigError, ModelError: If the rule does not probe, nothing fits the budget, or the adapters are trained.
            DataError, TrainingError: If there is no batch or loss, or gradients are NaN, infinite or all 0.
        """
        if self.phase == "train":
            return
        self.look(batches, loss, number_to_read(batches, self.config.probe_batches, per_step))
        self.advance()

    def look(self, batches: Iterable[Any], loss: Loss | None, number: int) -> None:
        """The first half of `probe()`: read the gradients of so many batches, and measure steps where that is due."""
        if self.limit is not None:
            batches = self.limit.measure(self.model, self.adapters, batches, loss, number)
        if self._rule.probes or self.limit is None:
            gather(self.model, self.adapters, self._rule, self.engine, batches, loss, number)
            self._record({"step": 0, "phase": "select", "active": len(self.names), "score": [*self.scores.values()]})

    def step(self, grad_scale: float | None = None) -> None:
        """Record what one optimizer step says about each adapter; at the end of a round, remove adapters.

        Args:
            grad_scale: The AMP loss scale of the backward pass (`scaler.get_scale()` before `scaler.update()`). A step
                that the scaler skipped is skipped here, too. `None` if there is no scaler.

        Raises:
            ConfigError, TrainingError: If `grad_scale` is not positive; if there was no backward pass or no optimizer
                step, or, right after a disconnect, the processes do not train the same weights any more.
        """
        self.observe(grad_scale)
        self.advance()

    def observe(self, grad_scale: float | None = None) -> None:
        """The first half of `step()`: read gradients, and move and project the gates until `advance()` is due."""
        self.engine.compare(self.model)
        if (phase := self.phase) == "train":
            return
        scale, stepped = check_scale(grad_scale), self.guard.take()
        taken = self._rule.take(scale)
        evidence = None if taken is None else self.engine.average(taken)
        self.guard.check_steps(stepped and evidence is not None, grad_scale)
        if not stepped or evidence is None:
            return
        due = budget.rounds_due(self.step_count, self.config.warmup_steps, self.config.steps, self.config.rounds)
        if self.rounds_over < due or (grad_scale is not None and not evidence.isfinite().all()):
            return
        check_finite(evidence, self.adapters, f"step {self.step_count + 1}: training has diverged, lower the rate")
        self.step_count += 1
        self._rule.update(evidence, self.step_count, self._best)
        found = ({"omega": [*self.omega.values()]} if self.has_gates else {}) | {"score": [*self.scores.values()]}
        self._record({"step": self.step_count, "phase": phase, "active": len(self.kept), **found})

    def _record(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        if self.run is not None:
            self.run.record(self, entry)

    def advance(self) -> None:
        """The second half of `step()` and `probe()`: at the end of a round, disconnect and expand, or finish."""
        due = budget.rounds_due(self.step_count, self.config.warmup_steps, self.config.steps, self.config.rounds)
        while self.rounds_over < due:
            self._decide()

    def finish(self, loaded: State | None = None) -> None:
        """Choose now, from the evidence so far. Does nothing once the choice is final.

        Args:
            loaded: State of the checkpoint whose weights the model has since got. Gates that had moved belong to them.

        Raises:
            TrainingError: If there is no evidence yet.
        """
        if self.phase != "train" and self.step_count < self.config.steps:
            self._rule.warn_of_few_steps(self.step_count)
        if loaded is not None and self.has_gates and self.phase != "train" and len({*loaded.scores}) > 1:
            self._rule.restore(*loaded.evidence(self.adapters))
        refuse_unprobed(self)
        while self.phase != "train":
            self._decide()

    def _decide(self) -> None:
        """End a round: rank, disconnect and expand; after the last round, fold the gates into the scalings."""
        score = self._rule.score = self.engine.agree(self._rule.score)
        if not self._best(score).all():
            self._rule.check_differs(self.step_count)
        keep = self._rule.decide(self._best)
        self.engine.settle(self.model, [adapter.name for adapter in compress(self.adapters, keep.tolist())])
        self.rounds_over, self._last_scores = self.rounds_over + 1, self.scores
        losers, self.adapters = (list(compress(self.adapters, mask.tolist())) for mask in (~keep, keep))
        self._rule.keep(keep)
        self.engine.remove_(self.model, losers, self.optimizer)
        if self.config.expand != "none":
            share, total = self.rounds_over / self.config.rounds, sum(self.sizes.values())
            ranks = expansion.next_ranks(self.adapters, self.config.expand_rank, self.start_ranks, share, total)
            seed = int(self.engine.agree(torch.tensor(self.config.seed % 2**53, device="cpu")))
            expansion.grow_(self.adapters, ranks, self.config.expand, self.optimizer, seed * 1000 + self.rounds_over)
        if self.rounds_over == self.config.rounds:
            self.close()
            for adapter, omega in zip(self.adapters, self._rule.omega.tolist(), strict=True):
                surgery.fold_gate_(adapter, omega)
        outcome.describe_(self.model, self.adapter_name)
        surgery.free_inputs_(self.model)
        self.engine.rewire_(self.model)
        self._record({"step": self.step_count, "kept": self.kept, "ranks": self.ranks})
        logging.getLogger(__name__).info(self.summary().text)

    def _best(self, score: Tensor) -> Tensor:
        """Mask of the adapters with the largest scores that the present round's budget keeps."""
        return (self.limit or self._budget).best(score, [self.sizes[a.name] for a in self.adapters], self.rounds_over)

    def close(self) -> None:
        """Leave nothing of ours on the model, and on the optimizer the guard alone."""
        self._rule.close()
        self.engine.close()
        self.guard.leave_others()

    def state_dict(self) -> dict[str, Any]:
        """The state needed to resume, as values that JSON can hold. The history is not part of it."""
        return self._start.at(self).to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the model, its optimizer and this selector to where the state was taken. Then load their own states.

        Raises:
            StateError: If this selector has made steps, or the state is of another format, config or model.
        """
        if self.step_count or self.rounds_over:
            raise StateError("this selection has begun: begin with WeightLora(model, optimizer, config, state).")
        check_resumes(parsed := State.from_dict(state), self._given, self.adapters, self.names)
        self._restore(parsed)

    def _restore(self, state: State) -> None:
        self._start = self.engine.start = state
        self.config = self._given.resolve(None, state.config["select_steps"])  # a fraction is that of the first run
        if self.limit is not None:
            self.limit.restore(state.costs)
        self.step_count, self.rounds_over = state.step_count, state.round
        self._rule.keep(torch.tensor([adapter.name in state.live for adapter in self.adapters], device="cpu"))
        before, self.adapters = self.adapters, bring_to_(self.model, self.adapters, state, self.optimizer)
        if len(self.adapters) < len(before):
            self.engine.rewire_(self.model)
        self._last_scores = state.column("scores")
        self._rule.restore(*state.evidence(self.adapters))
        if self.rounds_over == self.config.rounds:
            self.close()
        if self.run is not None:
            self.run.begin(self)
