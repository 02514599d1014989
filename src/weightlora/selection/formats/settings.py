"""Snippets of YAML for the tools that hand them to PEFT: TRL's command line, axolotl and LLaMA-Factory."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .targets import (
    expression_note,
    kernels_note,
    one_for_all,
    patterns_note,
    short_form,
    targets_of,
    whole_numbers,
)
from .wording import alternatives, comments, header, names_in, quoted, run_note, yaml_list, yaml_text

__all__ = ["to_axolotl", "to_llamafactory", "to_trl"]

TOWERS = re.compile("vision|visual|image|audio|projector|merger", re.IGNORECASE)


def to_trl(selection: Any) -> str:
    """Settings for TRL's commands (`trl sft --config FILE`)."""
    tool = "TRL's command line"
    one = one_for_all(selection, tool)
    alpha = whole_numbers(tool, one.alpha)
    targets = targets_of(selection)
    expression = expression_note(selection) if isinstance(targets, str) else None
    twice = isinstance(targets, list) and len(targets) == 1
    remedy = one.notes or expression
    python = "In Python, pass peft_config=LoraConfig(...): --format peft prints it." if remedy else None
    task = selection.lora.get("task_type")
    return _block(
        comments(
            header(selection),
            run_note(selection),
            *one.notes,
            expression,
            python,
            alpha.note,
            "The name is there twice, because TRL takes a list of one as an expression." if twice else None,
        ),
        ["use_peft: true", f"lora_r: {one.rank}", f"lora_alpha: {alpha.alpha}"],
        ["use_rslora: true"] if selection.use_rslora else [],
        [] if task is None else [f"lora_task_type: {yaml_text(task)}"],
        # without a list, PEFT would adapt its default modules, too
        _list("lora_target_modules", [targets] if isinstance(targets, str) else targets * (1 + twice))
        or ["lora_target_modules: []"],
        _parameters(selection),
        _list("lora_modules_to_save", selection.modules_to_save),
    )


def to_axolotl(selection: Any) -> str:
    """Settings for axolotl's YAML file."""
    alpha = whole_numbers("axolotl", selection.alpha, selection.alpha_pattern)
    targets = targets_of(selection)
    if isinstance(targets, list) and not all(map(_compiles, targets)):
        targets = alternatives(targets)  # axolotl refuses a list with a name that is no expression
    short = short_form(selection)
    kernels = kernels_note(selection, "axolotl's lora_..._kernel settings")
    grid = None
    if short is not None:
        types = ", ".join(map(yaml_text, short[0]))
        grid = (
            "Or, where the model has no others of these names: "
            f"lora_target_modules: [{types}] and peft_layers_to_transform: {short[1]}"
        )
    return _block(
        comments(header(selection), run_note(selection), alpha.note, patterns_note(selection), kernels, grid),
        ["adapter: lora  # or qlora", f"lora_r: {selection.rank}", f"lora_alpha: {alpha.alpha}"],
        ["peft_use_rslora: true"] if selection.use_rslora else [],
        ["lora_target_linear: false"],
        [f"lora_target_modules: {quoted(targets)}"]
        if isinstance(targets, str)
        else _list("lora_target_modules", targets),
        _parameters(selection),
        _list("lora_modules_to_save", selection.modules_to_save),
        _pattern("lora_rank_pattern", selection.rank_pattern),
        _pattern("lora_alpha_pattern", alpha.pattern),
    )


def to_llamafactory(selection: Any) -> str:
    """Settings for LLaMA-Factory's YAML file: names separated by commas, without patterns and parameters."""
    one = one_for_all(selection, "LLaMA-Factory")
    alpha = whole_numbers("LLaMA-Factory", one.alpha)
    names = [name for name in selection.target_modules if "," not in name and name == name.strip()]
    unnamed = [name for name in selection.target_modules if name not in names]
    parameters = selection.target_parameters
    notes = comments(
        header(selection),
        run_note(selection),
        *one.notes,
        alpha.note,
        f"LLaMA-Factory separates names by commas, and cannot name {names_in(unnamed)}." if unnamed else None,
        f"LLaMA-Factory adapts no parameters, and leaves out {names_in(parameters)}." if parameters else None,
        None
        if selection.unambiguous
        else "Names of other modules end in these, and LLaMA-Factory takes no expression: it may adapt them, too.",
        "LLaMA-Factory freezes these towers: see freeze_vision_tower and freeze_multi_modal_projector."
        if any(map(TOWERS.search, names))
        else None,
    )
    if not names:
        return _block(notes, comments("So it cannot express this choice: use another tool."))
    return _block(
        notes,
        ["finetuning_type: lora", f"lora_rank: {one.rank}", f"lora_alpha: {alpha.alpha}"],
        ["use_rslora: true"] if selection.use_rslora else [],
        [f"lora_target: {quoted(','.join(names))}"],
        [f"additional_target: {quoted(','.join(saved))}"] if (saved := selection.modules_to_save) else [],
    )


def _block(*parts: list[str]) -> str:
    return "\n".join(line for part in parts for line in part) + "\n"


def _list(key: str, names: Sequence[str]) -> list[str]:
    return [f"{key}:", *yaml_list(names)] if names else []


def _parameters(selection: Any) -> list[str]:
    lines = _list("lora_target_parameters", selection.target_parameters)
    return [*lines, "lora_dropout: 0.0  # PEFT has no dropout on parameters"] if lines else []


def _pattern(key: str, pattern: Mapping[str, int]) -> list[str]:
    return [f"{key}:", *(f"  {yaml_text(name)}: {value}" for name, value in pattern.items())] if pattern else []


def _compiles(name: str) -> bool:
    try:
        re.compile(name)
    except re.error:
        return False
    return True
