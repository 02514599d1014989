"""`WeightLora`, the controller: it watches a training run, chooses K adapters, and leaves a plain PEFT model."""

import logging
import os
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import budget
from .adapters import LoraAdapter, expansion, find_adapters, outcome, surgery
from .checkpoint import bring_to_
from .config import WeightLoraConfig
from .engines import Engine, check_agreement, engine_for, is_first
from .errors import ConfigError, StateError, TrainingError
from .optimizers import check_holds, unwrap_optimizer
from .rules import RULES
from .run import RunDirectory
from .state import State, check_config
from .summary import Described

logger = logging.getLogger(__name__)


class WeightLora(Described):
    """Selects K of the n LoRA adapters of a model while it is being trained (WeightLoRA, arXiv 2506.02724).

    Call `step()` once per optimizer step, after `optimizer.step()` and before `optimizer.zero_grad()`. After the last
    selection step the other adapters are gone from the model, the optimizer and memory, and `step()` does nothing.

    Args:
        model: A PEFT model with LoRA adapters, wrapped (`torch.compile`, DDP) or not.
        optimizer: Holds the adapters' parameters; a torch optimizer, or Accelerate's wrapper around one.
        config: The settings.
        state: From the `state_dict()` of an earlier run, which continues here on a model built alike, or restored.
        total_steps: Optimizer steps of the whole training. Needed where `config.select_steps` is a fraction.
        engine: How adapters leave what wraps the model; found out where it is not given.
        run_dir: Where the choice and the history are written while the run goes on (`weightlora.run`).

    Attributes:
        adapters: Those still on the model, in model order.
        names: All n adapters in model order, as PEFT's config names them.
        kinds: Whether each name is of a `"module"` or of a `"parameter"`.
        sizes: Their parameters at the start, by name.
        step_count: Optimizer steps seen in the selection phase.
        history: A dict per step: `step`, `phase`, `active` (gates that are not 0), `score` and, with gates, `omega` (n
            floats, in the order of `names`); and one per decision: `step`, `kept`, `ranks`. After a resume it begins
            there; the run directory has all steps.

    Raises:
        WeightLoraError: If the model, the optimizer and the settings do not fit one another.

    Example:
        ```python
        selector = WeightLora(model, optimizer, WeightLoraConfig(keep=9, select_steps=200))
        for batch in loader:
            model(**batch).loss.backward()
            optimizer.step()
            selector.step()
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
        if not isinstance(getattr(optimizer, "param_groups", None), list):
            raise ConfigError(
                f"the second argument is a {type(optimizer).__name__}, and must be the optimizer that trains the "
                "adapters: write WeightLora(model, optimizer, config)."
            )
        saved = None if state is None else State.from_dict(state)
        earlier = None if saved is None else saved.config["select_steps"]
        self.config = (config or WeightLoraConfig()).resolve(total_steps, earlier)
        assert isinstance(self.config.select_steps, int)  # it is resolved
        self._steps = self.config.select_steps
        self.engine = engine_for(model, optimizer) if engine is None else engine
        self.engine.attach(model)
        self.model, self.optimizer = model, unwrap_optimizer(optimizer)
        self.adapters: list[LoraAdapter] = find_adapters(model, self.config.adapter_name)
        self.adapter_name = self.adapters[0].adapter_name
        check_holds(self.optimizer, [(a.name, p) for a in self.adapters for p in a.parameters if p.requires_grad])
        self._start = saved or State.at_start(asdict(self.config), self.adapters)
        self.names = list(self._start.names)
        self.kinds, self.sizes = self._start.column("kinds"), self._start.column("sizes")
        if self.config.expand != "none":
            expansion.check_growth(self.adapters, self.config.expand_rank, self.engine.can_grow)
        self._budget = self.config.budget_for(list(self.sizes.values()))
        self._rule = RULES[self.config.selection](self.adapters, self.optimizer, self.config)
        self._ends = budget.round_ends(self.config.warmup_steps, self._steps, self.config.rounds)
        self._round = self.step_count = 0
        self._last_scores: dict[str, float] = {}  # of the disconnected
        self.history: list[dict[str, Any]] = []
        self.run = RunDirectory(run_dir) if run_dir is not None and is_first() else None
        self._stepped = False  # a step that an AMP scaler skips never reaches the optimizer
        self._step_hook = self.optimizer.register_step_pre_hook(self._mark_step)
        self._begin() if saved is None else self._restore(saved)

    def _begin(self) -> None:
        self._rule.warn_of_few_steps(self._steps)
        if self.run is not None:
            self.run.begin(self)
        if self._steps == 0:
            self.finish()

    @property
    def phase(self) -> budget.Phase:
        """Phase of the next step: `"warmup"`, `"select"`, or `"train"` once the choice is final."""
        if self._round == self.config.rounds:
            return "train"
        step = min(self.step_count + 1, self._steps)
        return budget.phase_at(step, self.config.warmup_steps, self._steps)

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

    @property
    def has_gates(self) -> bool:
        """Whether the rule multiplies adapters by gates."""
        return self._rule.has_gates

    def step(self, grad_scale: float = 1.0) -> None:
        """Take in one optimizer step; at the end of a round, disconnect.

        Args:
            grad_scale: The AMP loss scale that the backward pass ran under (`scaler.get_scale()` before
                `scaler.update()`). A step that the scaler skipped is skipped here too.

        Raises:
            TrainingError: If there was no backward pass, or a gradient is NaN or infinite. Nothing was changed then.
        """
        self.observe(grad_scale)
        self.advance()

    def observe(self, grad_scale: float = 1.0) -> None:
        """The first half of `step()`: read gradients, move and project the gates. Changes no structure."""
        phase = self.phase
        if phase == "train":
            return
        evidence = self._rule.take(grad_scale)
        evidence = None if evidence is None else self.engine.average(evidence)
        stepped, self._stepped = self._stepped, False
        if evidence is None or not stepped:
            if grad_scale != 1.0:
                return
            raise TrainingError("the optimizer has not stepped since the last step(): call it after optimizer.step().")
        if not evidence.isfinite().all():
            if grad_scale != 1.0:
                return
            worst = int((~evidence.isfinite()).nonzero()[0])
            raise TrainingError(
                f"the evidence on adapter {self.adapters[worst].name!r} is {float(evidence[worst])} in step "
                f"{self.step_count + 1}: training has diverged, lower the learning rate (history holds the last good "
                "scores)."
            )
        self.step_count += 1
        self._rule.update(evidence, self.step_count, self._best)
        omega = list(self.omega.values())
        entry: dict[str, Any] = {"step": self.step_count, "phase": phase, "active": sum(gate != 0 for gate in omega)}
        entry |= {"omega": omega} if self._rule.has_gates else {}
        self._record(entry | {"score": list(self.scores.values())})

    def _record(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        if self.run is not None:
            self.run.record(self, entry)

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
            TrainingError: If there is no evidence yet.
        """
        if self._round < self.config.rounds and self.step_count < self._steps:
            self._rule.warn_of_few_steps(self.step_count)
        while self._round < self.config.rounds:
            self._decide()

    def _decide(self) -> None:
        """End a round: rank, disconnect and expand; after the last round, fold the gates into the scalings."""
        score = self._rule.score = self.engine.agree(self._rule.score)
        if not self._best(score).all() and (score == score[0]).all():
            raise TrainingError(
                f"all adapters score the same after {self.step_count} steps, so there is nothing to choose by: "
                "train for more steps before the decision."
            )
        keep = self._rule.decide(self._best)
        check_agreement([adapter.name for adapter, kept in zip(self.adapters, keep.tolist(), strict=True) if kept])
        self._round += 1
        self._keep(keep)
        if self.config.expand != "none":
            start, share = self._start.column("start_ranks"), self._round / self.config.rounds
            total, seed = sum(self.sizes.values()), self.config.seed * 1000 + self._round
            ranks = expansion.next_ranks(self.adapters, self.config.expand_rank, start, share, total)
            expansion.grow_(self.adapters, ranks, self.config.expand, self.optimizer, seed)
        if self._round == self.config.rounds:
            self._close()
            for adapter, omega in zip(self.adapters, self._rule.omega.tolist(), strict=True):
                surgery.fold_gate_(adapter, omega)
        outcome.describe_(self.model, self.adapter_name)
        surgery.free_inputs_(self.model)
        self.engine.rewire_(self.model)
        self._record({"step": self.step_count, "kept": self.kept, "ranks": self.ranks})
        logger.info(self.summary().text)

    def _keep(self, mask: Tensor) -> None:
        self._last_scores = self.scores
        losers = [adapter for adapter, kept in zip(self.adapters, mask.tolist(), strict=True) if not kept]
        self.adapters = [adapter for adapter, kept in zip(self.adapters, mask.tolist(), strict=True) if kept]
        self._rule.keep(mask)
        self.engine.remove_(self.model, losers, self.optimizer)

    def _best(self, score: Tensor) -> Tensor:
        """Mask of the adapters with the largest scores that the present round's budget keeps."""
        return self._budget.best(score, [self.sizes[adapter.name] for adapter in self.adapters], self._round)

    def _close(self) -> None:
        """Leave nothing of ours on the model or the optimizer."""
        self._rule.close()
        self._step_hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the selection depends on, as values that JSON can hold. The history is not part of it."""
        scalings = {adapter.name: adapter.scaling for adapter in self.adapters}
        return replace(
            self._start,
            config=asdict(self.config),
            step_count=self.step_count,
            round=self._round,
            omega=list(self.omega.values()),
            scores=list(self.scores.values()),
            ranks=[self.ranks.get(name) for name in self.names],
            scalings=[scalings.get(name) for name in self.names],
            waiting=[adapter.name for adapter in self.engine.waiting],
        ).to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the model, its optimizer and this controller to where the state was taken.

        Load the model's and the optimizer's own states after it. Then the run continues bit for bit.

        Raises:
            StateError: If this controller has made steps, or the state is of another format, config or model.
        """
        self._restore(State.from_dict(state))

    def _restore(self, state: State) -> None:
        if self.step_count:
            raise StateError(f"this selection has made {self.step_count} steps: load a state into a fresh one.")
        check_config(state, self.config)
        live, before = state.live, len(self.adapters)
        self.step_count, self._round = state.step_count, state.round
        self._rule.keep(torch.tensor([adapter.name in live for adapter in self.adapters]))
        self.adapters = bring_to_(self.model, self.adapters, state, self.optimizer)
        if len(self.adapters) < before:
            self.engine.rewire_(self.model)
        self._last_scores = state.column("scores")
        score, omega = ([state.column(what)[a.name] for a in self.adapters] for what in ("scores", "omega"))
        self._rule.restore(torch.tensor(score, dtype=torch.float64), torch.tensor(omega, dtype=torch.float64))
        if self._round == self.config.rounds:
            self._close()
        if self.run is not None:
            self.run.begin(self)
