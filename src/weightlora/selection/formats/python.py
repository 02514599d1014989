"""Snippets of Python: PEFT's `LoraConfig`, and Unsloth's `get_peft_model`."""

import re
from typing import Any

from ...run import ALSO, TOKENS
from .targets import expression_note, grid_note, kernels_note, patterns_note
from .wording import NOTHING, also, alternatives, heading, how_many, names_in, python_value, quoted

WHOLE_IN_UNSLOTH = ("embed_tokens", "lm_head")
TRAINED_BY_UNSLOTH = re.compile(r"(^|\.)(embed_tokens|lm_head|[^.]*norm)$")
"""Modules that its FastLanguageModel trains in full."""
FAST = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
"""Types of models for which FastLanguageModel is no FastModel (unsloth 2026.10.9, models/loader.py). FastModel takes
full names if no flag of its `get_peft_model` is off, and FastLanguageModel's turns one off for all other models."""


def to_peft(selection: Any) -> list[str]:
    """A `LoraConfig`."""
    task = selection.lora.get("task_type")
    arguments = {} if task is None else {"task_type": str(task)}
    grid = grid_note(selection, quoted, "target_modules=[{types}], layers_to_transform={layers}")
    return [
        *heading(selection, patterns_note(selection), grid, sets=(*ALSO, TOKENS)),
        "from peft import LoraConfig",
        "",
        "config = LoraConfig(",
        *_arguments(arguments | _lora_arguments(selection)),
        *([f"    trainable_token_indices={tokens!r},"] if (tokens := selection.trainable_token_indices) else []),
        ")",
    ]


def to_unsloth(selection: Any) -> list[str]:
    """A call of Unsloth's `get_peft_model`."""
    targets = selection.target_modules
    arguments = _lora_arguments(selection)
    whole = [name for name in selection.module_names if name.rpartition(".")[2] in WHOLE_IN_UNSLOTH]
    loader = "FastLanguageModel" if selection.model_type in (None, *FAST) else "FastModel"
    others = [name for name in selection.modules_to_save if not TRAINED_BY_UNSLOTH.search(name)]
    others = others if loader == "FastLanguageModel" else []
    if isinstance(targets, str):
        arguments.setdefault("target_parameters", [])  # or Unsloth looks for experts that the expression might mean
        form = "One expression, because names of other modules end in these. Older versions want a list."
        rest = [name for name in selection.module_names if name not in whole]
        if whole and rest:  # which it moves there out of a list; in an expression they would get adapters that stay 0
            saved = [*selection.modules_to_save, *(name.rpartition(".")[2] for name in whole)]
            arguments |= {"target_modules": alternatives(rest), "modules_to_save": list(dict.fromkeys(saved))}
        elif whole:
            arguments["target_modules"] = whole  # it refuses a list of these alone
    elif loader == "FastModel":
        form = (
            "If a finetune_... flag is off, Unsloth takes no full names: use the expression of --format regex there."
        )
    elif selection.model_type is None:
        form = "Llama, Mistral, Gemma 1 and 2, Qwen2 and Qwen3. For others, and in 8 bit: FastModel.get_peft_model."
    else:
        form = "For a model in 8 bit: FastModel.get_peft_model."
    return [
        *heading(
            selection,
            form,
            patterns_note(selection),
            f"Unsloth trains all weights of {names_in(whole)}, without an adapter." if whole else None,
            f"FastLanguageModel refuses {names_in(others)} in modules_to_save: take FastModel." if others else None,
            kernels_note(selection, "Unsloth's fused kernels"),
            sets=ALSO,
        ),
        f"from unsloth import {loader}",
        "",
        f"model = {loader}.get_peft_model(",
        "    model,",
        *_arguments(arguments),
        ")",
    ]


def to_regex(selection: Any) -> list[str]:
    """One regular expression for PEFT's `target_modules`, and nothing else, so that a shell can pass it on."""
    return [alternatives(names) if (names := selection.module_names) else NOTHING]


def notes_on_regex(selection: Any) -> list[str]:
    """What the expression does not say: chosen parameters, which PEFT takes as a list, and ranks that differ."""
    notes = [expression_note(selection) if selection.module_names else "No module was chosen, but parameters."]
    if parameters := selection.target_parameters:
        notes.append(f"target_parameters: {', '.join(map(quoted, parameters))}")
    if selection.rank_pattern or selection.alpha_pattern:
        ranks = how_many(selection.ranks.values())
        notes.append(f"Ranks: {ranks}. --format json has the rank and alpha of each.")
    return [note for note in notes if note is not None]


def _lora_arguments(selection: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"r": selection.rank, "lora_alpha": selection.alpha}
    if selection.use_rslora:
        arguments["use_rslora"] = True
    arguments["target_modules"] = selection.target_modules
    optional = {
        "target_parameters": selection.target_parameters,
        "modules_to_save": selection.modules_to_save,
        "rank_pattern": selection.rank_pattern,
        "alpha_pattern": selection.alpha_pattern,
        **also(selection, {name: name for name in ALSO}),
    }
    return arguments | {name: value for name, value in optional.items() if value}


def _arguments(arguments: dict[str, Any]) -> list[str]:
    return [f"    {name}={python_value(value)}," for name, value in arguments.items()]
