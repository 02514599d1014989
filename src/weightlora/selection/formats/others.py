"""Snippets of YAML for the tools with layers of their own: torchtune and mlx-lm."""

from typing import Any

from ...mlx_names import TEXT_PARTS, mlx_name, mlx_name_of_text, reads_more_than_text, type_by_names
from .targets import one_for_all
from .wording import IMPOSSIBLE, SAME, also, heading, names_in, saved_note, yaml_list

ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
"""Transformers' name of a type -> torchtune's (torchtune 0.6.1, models/convert_weights.py)."""
MLP = ("gate_proj", "up_proj", "down_proj")
OUTPUT = "lm_head"


def to_torchtune(selection: Any) -> list[str]:
    """The nearest superset that torchtune can express: it chooses types, in all layers."""
    one = one_for_all(selection, "torchtune", rslora=False)
    leaves = [name.rpartition(".")[2] for name in selection.module_names]
    known = {*ATTENTION, *MLP, OUTPUT}
    strange = [name for name, leaf in zip(selection.module_names, leaves, strict=True) if leaf not in known]
    strange += selection.target_parameters
    notes = [*one.notes, saved_note(selection, "torchtune")]
    if strange:
        notes.append(f"torchtune has no adapter for {names_in(strange)}.")
    if len(strange) == len(selection.kept):
        return heading(selection, *notes, IMPOSSIBLE)
    attention = [name for leaf, name in ATTENTION.items() if leaf in leaves]
    if not attention:
        attention = ["q_proj"]
        notes.append("torchtune wants one type of the attention at least: q_proj is not of the choice.")
    mlp, output = any(leaf in MLP for leaf in leaves), OUTPUT in leaves
    types = {leaf for leaf, name in ATTENTION.items() if name in attention}
    types |= {*MLP} if mlp else set()
    types |= {OUTPUT} if output else set()
    covered = {module.name for module in selection.modules if module.name.rpartition(".")[2] in types}
    more = len(covered - set(selection.module_names))
    notes.append(
        f"torchtune chooses types, and not layers. The nearest superset adapts at least {more} more."
        if more
        else "torchtune chooses types, and not layers: this adapts every layer."
    )
    if output:
        notes.append("torchtune refuses apply_lora_to_output where the output shares the embeddings' weights.")
    settings = also(selection, SAME)
    return [
        *heading(selection, *notes, sets=SAME),
        "model:  # beside your _component_",
        f"  lora_attn_modules: [{', '.join(attention)}]",
        f"  apply_lora_to_mlp: {mlp}",
        *(["  apply_lora_to_output: True"] if output else []),  # the builders of Gemma and small Qwen2 have none
        f"  lora_rank: {one.rank}",
        f"  lora_alpha: {one.alpha:.12g}",
        *(f"  {name}: {value}" for name, value in settings.items()),
    ]


def to_mlx(selection: Any) -> list[str]:
    """Settings for `mlx_lm.lora --config FILE`."""
    one = one_for_all(selection, "mlx-lm")
    names = selection.module_names
    notes = [*one.notes, saved_note(selection, "mlx-lm")]
    experts = [name for name in selection.target_parameters if ".experts." in name]
    for what, parameters in (
        ("switch_mlp modules", experts),
        ("linear modules", [name for name in selection.target_parameters if name not in experts]),
    ):
        if parameters:
            notes.append(f"mlx-lm has {what} in place of the parameters {names_in(parameters)}, left out here.")
    kind = selection.model_type or type_by_names(names)
    inside = kind in TEXT_PARTS or reads_more_than_text(module.name for module in selection.modules)
    if inside and kind != "gemma3n":  # which has Transformers' names there
        if left := [name for name in names if mlx_name(name) is None]:
            notes.append(f"mlx-lm has the language model alone, and leaves out {names_in(left)}.")
        names = [theirs for name in names if (theirs := mlx_name(name)) is not None]
        if selection.model_type is None:
            notes.append("For Gemma 3n, write model.language_model instead of language_model.model.")
    elif not inside:
        names = [mlx_name_of_text(name, kind) or name for name in names]
    if not names:
        return heading(selection, *notes, IMPOSSIBLE)
    notes.append(
        "mlx-lm skips names that it does not have (see mlx_lm/models): compare the trainable parameters that it "
        "prints."
    )
    return [
        *heading(selection, *notes, sets=SAME),
        f"fine_tune_type: {'dora' if selection.lora.get('use_dora') else 'lora'}",
        "num_layers: -1  # all; the full names choose",
        "lora_parameters:",
        f"  rank: {one.rank}",
        f"  scale: {one.scaling!r}",
        f"  dropout: {selection.lora.get('lora_dropout', 0.0)}",
        "  keys:",
        *yaml_list(names, "    "),
    ]
