"""Snippets of YAML for the tools that hand them to PEFT: TRL's command line, axolotl, LLaMA-Factory and ms-swift."""

import json
import re
from typing import Any

from ...run import TOKENS
from .targets import (
    expression_note,
    grid_note,
    kernels_note,
    one_for_all,
    patterns_note,
    whole_numbers,
)
from .wording import IMPOSSIBLE, NOTHING, SAME, also, alternatives, heading, names_in, quoted, yaml_list, yaml_text

AXOLOTL = {**SAME, "use_dora": "peft_use_dora", TOKENS: "peft_trainable_token_indices"}
"""PEFT's names of settings -> axolotl's."""
NO_DROPOUT = {"lora_dropout": 0.0}
"""The default of PEFT, which has no dropout on parameters. TRL's command line and ms-swift have 0.05."""
TOWERS = re.compile(r"vision|visual|image|audio|projector|merger|resampler|\b(vpm|apm|tts|mlp_AR)\b", re.IGNORECASE)
NEVER = re.compile("patch_embed|subsample_conv_projection|timm_model|audio_projection_layer")
"""In names that LLaMA-Factory leaves out, whatever it freezes (0.9.5, model_utils/visual.py, lora_conflict_keys)."""


def to_trl(selection: Any) -> list[str]:
    """Settings for TRL's commands (`trl sft --config FILE`)."""
    tool = "TRL's command line"
    one = one_for_all(selection, tool)
    alpha = whole_numbers(tool, one.alpha)
    targets = selection.target_modules
    expression = expression_note(selection) if isinstance(targets, str) else None
    twice = isinstance(targets, list) and len(targets) == 1
    remedy = one.notes or expression
    python = "In Python, pass peft_config=LoraConfig(...): --format peft prints it." if remedy else None
    return [
        *heading(
            selection,
            *one.notes,
            expression,
            python,
            alpha.note,
            "The name is there twice, because TRL takes a list of one as an expression." if twice else None,
            sets=SAME,
        ),
        *_yaml(
            use_peft=True,
            lora_r=one.rank,
            lora_alpha=alpha.alpha,
            use_rslora=selection.use_rslora or None,
            lora_task_type=selection.lora.get("task_type"),
            # also if it is empty: without a list, PEFT would adapt its default modules, too
            lora_target_modules=[targets] if isinstance(targets, str) else targets * (1 + twice),
        ),
        *_yaml(
            lora_target_parameters=selection.target_parameters or None,
            lora_modules_to_save=selection.modules_to_save or None,
            **NO_DROPOUT | also(selection, SAME),
        ),
    ]


def to_axolotl(selection: Any) -> list[str]:
    """Settings for axolotl's YAML file."""
    alpha = whole_numbers("axolotl", selection.alpha, selection.alpha_pattern)
    targets = selection.target_modules
    if isinstance(targets, list) and not all(map(_compiles, targets)):
        targets = alternatives(targets)  # axolotl refuses a list with a name that is no expression
    kernels = kernels_note(selection, "axolotl's lora_..._kernel settings")
    patterns = selection.rank_pattern or alpha.pattern
    versions = "This needs axolotl 0.18 or later: earlier ones ignore the two patterns." if patterns else None
    grid = grid_note(selection, yaml_text, "lora_target_modules: [{types}] and peft_layers_to_transform: {layers}")
    return [
        *heading(selection, alpha.note, patterns_note(selection), versions, kernels, grid, sets=AXOLOTL),
        "adapter: lora  # or qlora",
        *_yaml(
            lora_r=selection.rank,
            lora_alpha=alpha.alpha,
            peft_use_rslora=selection.use_rslora or None,
            lora_target_linear=False,
            lora_target_modules=targets or None,
        ),
        *_yaml(
            lora_target_parameters=selection.target_parameters or None,
            lora_modules_to_save=selection.modules_to_save or None,
            lora_rank_pattern=selection.rank_pattern or None,
            lora_alpha_pattern=alpha.pattern or None,
            **also(selection, AXOLOTL),
        ),
    ]


def to_llamafactory(selection: Any) -> list[str]:
    """Settings for LLaMA-Factory's YAML file: names separated by commas, without patterns and parameters."""
    one = one_for_all(selection, "LLaMA-Factory")
    alpha = whole_numbers("LLaMA-Factory", one.alpha)
    names = [name for name in selection.module_names if "," not in name and name == name.strip()]
    unnamed = [name for name in selection.module_names if name not in names]
    parameters, never = selection.target_parameters, [name for name in names if NEVER.search(name)]
    notes = heading(
        selection,
        *one.notes,
        alpha.note,
        f"LLaMA-Factory separates names by commas, and cannot name {names_in(unnamed)}." if unnamed else None,
        f"LLaMA-Factory adapts no parameters, and leaves out {names_in(parameters)}." if parameters else None,
        None
        if selection.unambiguous
        else "Names of other modules end in these, and LLaMA-Factory takes no expression: it may adapt them, too.",
        f"LLaMA-Factory adapts no {names_in(never)}, whatever it freezes." if never else None,
        "LLaMA-Factory freezes these towers: see freeze_vision_tower and freeze_multi_modal_projector."
        if any(map(TOWERS.search, names))
        else None,
        None if names else IMPOSSIBLE,
        sets=SAME if names else (),
    )
    if not names:
        return notes
    return [
        *notes,
        "finetuning_type: lora",
        *_yaml(
            lora_rank=one.rank,
            lora_alpha=alpha.alpha,
            use_rslora=selection.use_rslora or None,
            lora_target=",".join(names),
            additional_target=",".join(selection.modules_to_save) or None,
            **also(selection, SAME),
        ),
    ]


def to_swift(selection: Any) -> list[str]:
    """Settings for ms-swift's YAML file (`swift sft FILE`), which makes arguments of a command line of them."""
    one = one_for_all(selection, "ms-swift")
    # An empty list is no argument, and without one it adapts all linear modules.
    targets = selection.target_modules or NOTHING
    form, note = "target_modules", None
    if isinstance(targets, str):
        form, note = "target_regex", expression_note(selection)
    return [
        *heading(selection, *one.notes, note, sets=SAME),
        *_yaml(
            lora_rank=one.rank,
            lora_alpha=int(one.alpha) if one.alpha.is_integer() else one.alpha,
            use_rslora=selection.use_rslora or None,
            **{form: targets},
            target_parameters=selection.target_parameters or None,
            modules_to_save=selection.modules_to_save or None,
            **NO_DROPOUT | also(selection, SAME),
        ),
    ]


def _yaml(**settings: Any) -> list[str]:
    """The lines of settings; None is left out."""
    lines: list[str] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(line for name, entry in value.items() for line in _entry(yaml_text(name), entry))]
        elif isinstance(value, list) and isinstance(value[0] if value else None, str):
            lines += [f"{key}:", *yaml_list(value)]
        elif value is not None:
            lines.append(f"{key}: {quoted(value) if isinstance(value, str) else json.dumps(value)}")
    return lines


def _entry(key: str, value: Any) -> list[str]:
    """The lines of an entry. YAML takes a key of more than 1,024 characters behind a question mark alone."""
    return [f"  {key}: {value}"] if len(key) < 1000 else [f"  ? {key}", f"  : {value}"]


def _compiles(name: str) -> bool:
    try:
        re.compile(name)
    except re.error:
        return False
    return True
