"""`Selection`: what a run chose, as Python sees it. The typed view of `selection.json` (`weightlora.run`)."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ..adapters.outcome import default_and_exceptions
from ..costs import in_words
from ..directories import replacing_directory
from ..files import append_lines, read_lines, resolved, write_json
from ..run import HISTORY, SELECTION, SELECTION_FORMAT, TOKENS, check_empty, check_selector, describe_selection
from ..summary import Summary, by_kind
from .adapting import saved_in_full
from .formats import check_final, to_text
from .formats.wording import alternatives
from .module import Module
from .reading import OPTIONAL, read_values


@dataclass(frozen=True, repr=False)
class Selection:
    """The modules that a run chose, with ranks, scores and settings.

    Get one from `weightlora.select(...)`, from `Selection.of(selector)` in your own loop, or from a run directory.

    Attributes:
        modules: One row for each module that could be chosen, in model order.
        config: The settings of the selection, as `dataclasses.asdict(WeightLoraConfig(...))` gives them.
        phase: `"train"` once the choice is final.
        step: Optimizer steps before the choice; 0 for a choice before the first step.
        model: Name or path of the base model, if it has one.
        model_type: Its type, as in Transformers' config: `"llama"`, ...; None if that is not known.
        lora: PEFT's settings of the adapters: `r`, `lora_alpha`, `use_rslora`, `task_type`, `modules_to_save`,
            and where they are set `use_dora`, `trainable_token_indices`, `lora_dropout`, `bias` and `lora_bias`.
        unambiguous: False if another module's name ends in the name of a module that could be chosen. PEFT would match
            both, so `target_modules` is a regular expression.
        fused_experts: True if the model has the fused experts of Mixtral, Qwen MoE and similar models, where PEFT 0.21
            reads an expression as types of modules in all layers; else None.
        fused_rank: What the rank of these experts' `gate_up_proj` was, as a multiple of the others': 2 where PEFT made
            it from `all-linear`, as it stands for two modules; else None.
        adapter_name: PEFT's name of the adapter.
        trainable_parameters: Number of parameters of the adapters, `"before"` and `"after"` the choice.
        versions: Package name -> version, at the time of the run.
        seeds: For a choice over several seeds, module -> number of seeds at which it was chosen; else None.
        grouping: For a choice by groups, its cost: `group`, `modules`, `parameters`, and the same two figures
            `without_groups` and for these modules with their groups `completed`; else None.
        rank_rule: `"proportional"` if the ranks are in proportion to the scores; else None.
        costs: For a choice within a budget of step time or memory: `resource`, and in seconds or bytes `budget`,
            `predicted` and `whole` (with all adapters); `score`, the sum of the kept ones; and `frontier`, what other
            budgets would keep (`weightlora.costs.frontier`); else None.
        history: One dict per step and per decision, as `WeightLora.history`. Empty for a selection read from a
            directory, which keeps them in `history.jsonl`.
        directory: Where the selection was read from.

    Example:
        ```python
        selection = Selection.load("runs/first")
        LoraConfig(r=16, target_modules=selection.target_modules)
        print(selection.to("axolotl"))
        ```
    """

    modules: tuple[Module, ...]
    config: Mapping[str, Any]
    phase: str = "train"
    step: int = 0
    model: str | None = None
    model_type: str | None = None
    lora: Mapping[str, Any] = field(default_factory=dict)
    unambiguous: bool = True
    fused_experts: bool | None = None
    fused_rank: int | None = None
    adapter_name: str = "default"
    trainable_parameters: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] | None = None
    grouping: Mapping[str, Any] | None = None
    rank_rule: str | None = None
    costs: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    directory: Path | None = None

    @classmethod
    def of(cls, selector: Any) -> "Selection":
        """The selection of a `WeightLora`, as it is now; a `StateError` for anything else."""
        check_selector(selector, "Selection.of")
        return cls.from_dict(describe_selection(selector), history=tuple(selector.history))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Selection":
        """Read the `selection.json` of a run directory, also while the run goes on.

        Raises:
            DataError: If there is none, or it is damaged or of a later version.
        """
        path = Path(directory)
        return cls.from_dict(read_values(path), directory=path)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = (), directory: Path | None = None
    ) -> "Selection":
        """The inverse of `to_dict`. The values are those of a `selection.json`, and are not checked."""
        return cls(
            modules=tuple(
                Module(**{name: row[name] for name in Module.__annotations__}) for row in values["adapters"]
            ),
            **{name: values[name] for name in KEYS if name in values},
            history=history,
            directory=directory,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of `selection.json`."""
        values = {
            name: getattr(self, name) for name in KEYS if name not in OPTIONAL or getattr(self, name) is not None
        }
        return {"format": SELECTION_FORMAT, **values, "adapters": [asdict(module) for module in self.modules]}

    def save(self, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write a run directory: `selection.json` and, if there is a history, `history.jsonl`.

        The directory appears whole or not at all.

        Args:
            directory: Created; it may exist if it is empty.
            overwrite: Replace an earlier choice. Trained weights, and another directory that is not empty, are
                refused all the same.

        Returns:
            The directory.

        Raises:
            DataError: If the directory is not empty and `overwrite` is off.
        """
        target = resolved(directory)
        check_empty(target, overwrite)
        history = self.history
        if not history and self.directory is not None and (self.directory / HISTORY).is_file():
            history = read_lines(self.directory / HISTORY)
        with replacing_directory(target) as staging:
            write_json(staging / SELECTION, self.to_dict())
            if history:
                append_lines(staging / HISTORY, history)
        return target

    @property
    def final(self) -> bool:
        """Whether the choice is made."""
        return self.phase == "train"

    @cached_property
    def kept(self) -> tuple[Module, ...]:
        """The rows of the chosen modules, in model order."""
        return tuple(module for module in self.modules if module.kept)

    @property
    def module_names(self) -> list[str]:
        """Full names of the chosen modules."""
        return [module.name for module in self.kept if module.kind == "module"]

    @property
    def target_modules(self) -> list[str] | str:
        """For PEFT's `target_modules`: `module_names`, or an expression; a `StateError` before the choice is final."""
        check_final(self)
        names = self.module_names
        return names if self.unambiguous or not names else alternatives(names)

    @property
    def target_parameters(self) -> list[str]:
        """Full names of the chosen parameters (fused experts), for PEFT's `target_parameters`."""
        return [module.name for module in self.kept if module.kind == "parameter"]

    @property
    def modules_to_save(self) -> list[str]:
        """For PEFT's `modules_to_save`: what the run trained in full, but for the heads that PEFT adds itself."""
        return saved_in_full(self.lora)

    @property
    def trainable_token_indices(self) -> list[int] | dict[str, list[int]]:
        """PEFT's setting of the rows of embeddings that the run trained; an empty list if there are none."""
        found: list[int] | dict[str, list[int]] = self.lora.get(TOKENS) or []
        return found

    @property
    def scores(self) -> dict[str, float | None]:
        """The score of every module that could be chosen."""
        return {module.name: module.score for module in self.modules}

    @property
    def rule(self) -> str:
        """The rule that chose: `"credit"`, `"gradient"`, `"stoiht"`, ..."""
        return str(self.config.get("selection", "credit"))

    @property
    def use_rslora(self) -> bool:
        """Whether the scaling is `alpha / sqrt(r)` instead of `alpha / r`."""
        return bool(self.lora.get("use_rslora"))

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The rank of each chosen module."""
        return {module.name: module.rank for module in self.kept if module.rank is not None}

    @cached_property
    def scalings(self) -> dict[str, float]:
        """The factor before `B A x` with which a new training of each chosen module starts.

        The gate that the run learned is left out: like A and B, it is a result of training.
        """
        found = {module.name: module.scaling_without_gate(self.final) for module in self.kept}
        return {name: scaling for name, scaling in found.items() if scaling is not None}

    @cached_property
    def alphas(self) -> dict[str, int | float]:
        """PEFT's `lora_alpha` of each chosen module: `scaling * rank`, with rsLoRA `scaling * sqrt(rank)`."""
        roots = {name: math.sqrt(rank) if self.use_rslora else rank for name, rank in self.ranks.items()}
        return {name: _whole(scaling * roots[name]) for name, scaling in self.scalings.items()}

    @property
    def rank(self) -> int:
        """The common rank of the chosen modules, or the largest."""
        return max(self.ranks.values(), default=int(self.lora.get("r", 8)))

    @property
    def alpha(self) -> int | float:
        """The common `lora_alpha` of the chosen modules, or the most frequent."""
        counted = Counter(self.alphas.values()).most_common(1)
        return counted[0][0] if counted else self.lora.get("lora_alpha", 8)

    @property
    def rank_pattern(self) -> dict[str, int]:
        """PEFT's `rank_pattern`: the ranks that differ from `rank`. Each key matches its own module alone."""
        return default_and_exceptions(self.ranks, max)[1] if self.kept else {}

    @property
    def alpha_pattern(self) -> dict[str, int | float]:
        """PEFT's `alpha_pattern`: the alphas that differ from `alpha`. Each key matches its own module alone."""
        return default_and_exceptions(self.alphas, lambda _: self.alpha)[1] if self.kept else {}

    def to(self, name: str) -> str:
        """The text to paste into another tool's script or settings.

        Args:
            name: `"peft"`, `"trl"`, `"axolotl"`, `"llamafactory"`, `"swift"`, `"unsloth"`, `"torchtune"`, `"mlx"`,
                `"regex"` or `"json"`.

        Raises:
            ConfigError: If the format is not known.
            StateError: If the choice is not final, or nothing was chosen.
        """
        return to_text(self, name)

    def plot(self) -> Any:
        """The picture of the choice, a matplotlib figure: layers, module types, scores as colours, the kept framed."""
        from ..drawing.picture import selection_figure

        return selection_figure(self.to_dict())

    def summary(self) -> Summary:
        """One row (a dict) for each module, in model order; printed, or shown in a notebook, it is a table."""
        return Summary(map(asdict, self.modules), self._sentence())

    def _sentence(self) -> str:
        names = [module.name for module in self.kept]
        if not self.final:
            return f"{len(names)} of {len(self.modules)} modules are active after {self.step} selection steps."
        kinds = by_kind(names, [module.name for module in self.modules])
        text = f"{len(names)} of {len(self.modules)} modules chosen by {self.rule}: {kinds}."
        return f"{text} {self.cost_in_words()}".rstrip()

    def cost_in_words(self) -> str:
        """One sentence about a budget of step time or memory; empty without one."""
        if self.costs is None:
            return ""
        return in_words(*(self.costs[name] for name in ("resource", "predicted", "budget", "whole")))

    def __repr__(self) -> str:
        of = "" if self.model is None else f" of {self.model}"
        ranks = sorted(set(self.ranks.values()))
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "no rank"
        return f"<Selection{of}, {rank}: {self._sentence()}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


KEYS = tuple(one.name for one in fields(Selection) if one.name not in {"modules", "history", "directory"})
"""What a `selection.json` holds under the names of the fields."""


def _whole(value: float) -> int | float:
    """The whole number that a value is but for rounding, or the value with 12 digits."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded
