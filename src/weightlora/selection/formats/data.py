"""The choice as JSON, for programs."""

import json
from typing import Any

from ...run import ALSO
from .wording import also


def to_json(selection: Any) -> list[str]:
    """One JSON object, with PEFT's names where PEFT has one."""
    more = {name: getattr(selection, name) for name in ("seeds", "grouping")}
    content = {
        "model": selection.model,
        "rule": selection.rule,
        "target_modules": selection.target_modules,
        "target_parameters": selection.target_parameters,
        "modules_to_save": selection.modules_to_save,
        "rank": selection.rank,
        "alpha": selection.alpha,
        "use_rslora": selection.use_rslora,
        **also(selection, {name: name for name in ALSO}),
        "rank_pattern": selection.rank_pattern,
        "alpha_pattern": selection.alpha_pattern,
        "adapters": {"before": len(selection.modules), "after": len(selection.kept)},
        "trainable_parameters": dict(selection.trainable_parameters),
        "scores": selection.scores,
        **({"trainable_token_indices": tokens} if (tokens := selection.trainable_token_indices) else {}),
        **{name: dict(value) for name, value in more.items() if value is not None},
    }
    return json.dumps(content, indent=2, allow_nan=False).split("\n")
