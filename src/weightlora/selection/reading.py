"""Read a `selection.json`, and say what is wrong with one that no run wrote."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import read_json
from ..run import RESULT, SELECTION, SELECTION_FORMAT, TOKENS
from ..schema import COLUMNS, NAME, NUMBER, Rule, or_none
from ..values import is_int, is_number
from ..wording import shown

COMPARED = ("tuning", "results")
"""Where `weightlora compare` puts its runs."""


def _whole(value: Any) -> bool:
    return is_int(value) and 0 <= value < 2**63


def _lora(value: Mapping[str, Any]) -> bool:
    saved = value.get("modules_to_save", [])
    names = isinstance(saved, list) and all(isinstance(name, str) for name in saved)
    tokens = value.get(TOKENS) or []
    rows = [*tokens.values()] if isinstance(tokens, dict) else [tokens]
    names = names and all(isinstance(numbers, list) and all(map(_whole, numbers)) for numbers in rows)
    return _whole(value.get("r")) and value["r"] > 0 and NUMBER[0](value.get("lora_alpha")) and names


def _costs(value: Any) -> bool:
    amounts = ("budget", "predicted", "whole", "score")
    return (
        isinstance(value, dict)
        and value.get("resource") in ("step_time", "memory")
        and all(is_number(value.get(name)) for name in amounts)
        and value["whole"] > 0
        and isinstance(points := value.get("frontier"), list)
        and all(isinstance(p, dict) and all(is_number(p.get(n)) for n in ("cost", "kept", "score")) for p in points)
    )


COUNT: Rule = lambda value: _whole(value) and value > 0, "a positive whole number"
TRUTH: Rule = lambda value: isinstance(value, bool), "true or false"
TEXT: Rule = lambda value: isinstance(value, str), "a name"
OBJECT: Rule = lambda value: isinstance(value, dict), "an object"
ROW: dict[str, Rule] = {
    "name": NAME,
    "kind": COLUMNS["kinds"],
    "kept": TRUTH,
    "score": or_none(NUMBER),
    "omega": NUMBER,
    "rank": or_none(COUNT),
    "scaling": COLUMNS["scalings"],
    "parameters": (_whole, "a whole number"),
}
REST: dict[str, Rule] = {
    "adapter_name": TEXT,
    "model": or_none(TEXT),
    "lora": (
        lambda value: isinstance(value, dict) and _lora(value),
        "an object with a positive r, a lora_alpha, names as modules_to_save and numbers as trainable_token_indices",
    ),
    "unambiguous": TRUTH,
    "config": OBJECT,
    "phase": (lambda value: value in ("warmup", "select", "train"), "'warmup', 'select' or 'train'"),
    "step": (_whole, "a whole number"),
    "trainable_parameters": (
        lambda value: isinstance(value, dict) and all(_whole(value.get(key)) for key in ("before", "after")),
        "an object with before and after",
    ),
    "versions": OBJECT,
}
OPTIONAL: dict[str, Rule] = {
    "model_type": or_none(TEXT),
    "fused_experts": or_none(TRUTH),
    "fused_rank": or_none(COUNT),
    "seeds": or_none((lambda value: isinstance(value, dict) and all(map(_whole, value.values())), "counts by name")),
    "grouping": or_none(OBJECT),
    "rank_rule": or_none((lambda value: value == "proportional", "'proportional'")),
    "costs": or_none((_costs, "the costs of a choice")),
}
"""What only some choices have. It is written where it is not None."""


def read_values(directory: Path) -> dict[str, Any]:
    """The content of the `selection.json` of a run directory.

    Raises:
        DataError: If there is none, or it is damaged or of a later version.
    """
    path = directory / SELECTION
    if not path.is_file():
        raise DataError(f"{directory} {_why_no_run(directory)}")
    values: dict[str, Any] = read_json(path, "give another run, or choose again")
    rows = values.get("adapters") if isinstance(values, dict) else None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise DataError(f"{path} lists no adapters: give the directory of a run.")
    found = values.get("format")
    if not (type(found) is int and 1 <= found <= SELECTION_FORMAT):
        remedy = "update weightlora" if type(found) is int and found > SELECTION_FORMAT else "run the selection again"
        raise DataError(f"{path} has format {shown(found)}, and this version reads {SELECTION_FORMAT}: {remedy}.")
    for place, row in enumerate(rows):
        for key, (fits, what) in ROW.items():
            if key not in row or not fits(row[key]):
                raise _damaged(path, f"adapter {place}", key, row, what)
        for key in ("rank", "scaling") if row["kept"] else ():
            if row[key] is None:
                raise _damaged(path, f"adapter {place}", key, row, "a number, because it is kept")
    for key, (fits, what) in {**REST, **OPTIONAL}.items():
        if (key in values or key in REST) and not fits(values.get(key)):
            raise _damaged(path, "it", key, values, what)
    if len({row["name"] for row in rows}) < len(rows):
        raise DataError(f"{path} names an adapter twice: run the selection again.")
    return values


def _why_no_run(directory: Path) -> str:
    if not directory.exists():
        return "does not exist: give the directory of a run."
    if not directory.is_dir():
        return f"is a file: give the directory of the run, which has {SELECTION} in it."
    if not any(directory.iterdir()):
        return f"is empty: a run writes {SELECTION} when its training begins, so ask again then."
    if (directory / "settings.json").is_file() and any((directory / part).is_dir() for part in COMPARED):
        command = f"weightlora compare --output_dir {shlex.quote(str(directory))} --summarize"
        return f"is the directory of a comparison, not of a run: `{command}` prints it."
    if (directory / RESULT).is_file():
        return f"is the directory of a training that chose no adapters: its results are in {RESULT}."
    return f"is not the directory of a run, because it has no {SELECTION}: give the output_dir of its Trainer."


def _damaged(path: Path, where: str, key: str, values: Mapping[str, Any], what: str) -> DataError:
    found = shown(values[key]) if key in values else "no value"
    return DataError(f"{path}: {where} has {found} as {key!r}, and needs {what}: run the selection again.")
