"""`Module`: one row of a selection."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Module:
    """One module (or fused parameter) that the run could choose.

    Attributes:
        name: Full name, as in PEFT's config.
        kind: `"module"` for `target_modules`, `"parameter"` for `target_parameters`.
        kept: Whether it was chosen.
        score: What the rule ranks by; None if it has none.
        omega: The gate, 0 if it was dropped. Without gates, 1 if it was kept and 0 if not.
        rank: Rank of its adapter; None if it was dropped.
        scaling: The factor before `B A x`, gate included once the choice is final; None if it was dropped.
        parameters: Number of parameters of its adapter at the start.

    Example:
        ```python
        selection = Selection.load("runs/first")
        best = max(selection.kept, key=lambda module: module.score)
        print(best.name, best.score, best.rank)
        ```
    """

    name: str
    kind: Literal["module", "parameter"]
    kept: bool
    score: float | None
    omega: float
    rank: int | None
    scaling: float | None
    parameters: int

    def scaling_without_gate(self, final: bool) -> float | None:
        """The factor without the gate.

        Args:
            final: Whether the choice is final. From then on the gate is in `scaling`.
        """
        return self.scaling / self.omega if final and self.omega and self.scaling is not None else self.scaling
