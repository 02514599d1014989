"""What each profile can hold of PEFT's features, and why an adapter that has another one is refused."""

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ..adapters.variants import UNSERVED_INITS
from ..errors import ModelError
from ..mlx_names import TEXT_PARTS, reads_more_than_text
from .base import Base
from .source import Source

PEFT_LAYOUT = frozenset({"portable", "compact", "merged"})
MERGED, NONE = frozenset({"merged"}), frozenset[str]()
CONV1D = (".c_attn", ".c_fc", ".c_proj")
"""How the names of GPT-2's Conv1D layers end. Other models have linear layers of these names."""


class Feature(NamedTuple):
    """Something that an adapter may have beside pairs on linear layers.

    Attributes:
        profiles: The profiles that keep it.
        why: What it is, for the message that refuses it. `NAME` in it is the profile.
        present: Whether an adapter has it; None where PEFT's setting of the same name says so.
    """

    profiles: frozenset[str]
    why: str
    present: Callable[[Source], object] | None = None


def _has(kind: str) -> Callable[[Source], bool]:
    return lambda source: any(pair.kind == kind for pair in source.pairs)


def _init(source: Source) -> bool:
    init = source.config.init_lora_weights
    return isinstance(init, str) and init.lower().startswith(tuple(UNSERVED_INITS))


FEATURES: dict[str, Feature] = {
    "use_dora": Feature(MERGED, "DoRA changes the norms of the weights, which no B A can"),
    "lora_bias": Feature(MERGED, "B has a bias, which servers do not read"),
    "bias": Feature(MERGED, "biases of the base model were trained, too", lambda source: source.config.bias != "none"),
    "modules_to_save": Feature(
        PEFT_LAYOUT, "it has modules that were trained whole, such as a classifier", lambda source: source.heads
    ),
    "trainable_token_indices": Feature(MERGED, "rows of an embedding were trained, too"),
    "use_bdlora": Feature(MERGED, "its factors hold the blocks of a block-diagonal matrix"),
    "alora_invocation_tokens": Feature(NONE, "aLoRA adds nothing before its invocation tokens"),
    "layer_replication": Feature(NONE, "it runs layers of the base model several times"),
    "use_qalora": Feature(NONE, "QA-LoRA averages its inputs in groups"),
    "kasa_config": Feature(NONE, "KaSA changes the base weights"),
    "arrow_config": Feature(NONE, "Arrow routes between adapters"),
    "init_lora_weights": Feature(
        NONE,
        "its initialisation moved a part of the base weights into the adapter; convert it first, with "
        "model.save_pretrained(directory, path_initial_model_for_weight_conversion=...)",
        _init,
    ),
    "fan_in_fan_out": Feature(
        PEFT_LAYOUT, "it adapts the Conv1D layers of GPT-2, which NAME names and stores in another way"
    ),
    "convolution": Feature(PEFT_LAYOUT, "it adapts a convolution, which NAME does not read", _has("convolution")),
    "target_parameters": Feature(PEFT_LAYOUT, "it adapts fused experts, which NAME does not read", _has("parameter")),
}
"""Name -> feature, in the order in which they are looked for."""


def _refuse(name: str, profile: str) -> NoReturn:
    feature = FEATURES[name]
    others = [other for other in ("portable", "compact", "merged") if other in feature.profiles]
    remedy = f"choose profile {' or '.join(map(repr, others))}" if others else "no profile keeps it"
    why = feature.why.replace("NAME", profile)
    raise ModelError(f"{name} cannot be exported to profile {profile!r}: {why}. {remedy.capitalize()}.")


def check_features(source: Source, profile: str) -> None:
    """Raise a `ModelError` if the adapter has something that the profile cannot hold, and name it."""
    for name, feature in FEATURES.items():
        present = getattr(source.config, name) if feature.present is None else feature.present(source)
        if present and profile not in feature.profiles:
            _refuse(name, profile)
    if source.others and profile != "merged":
        key = next(iter(source.others))
        raise ModelError(
            f"the adapter has a tensor {key!r}, which is no part of LoRA, so servers refuse it: "
            "choose profile 'merged', or remove what trains it."
        )


def keeps(profile: str, source: Source) -> bool:
    """Whether a profile can hold all that an adapter has."""
    try:
        check_features(source, profile)
    except ModelError:
        return False
    return True


def check_tied(source: Source, base: Base, profile: str) -> None:
    """Raise a `ModelError` if mlx-lm or llama.cpp would use an adapter in two places or in none, or transposed.

    The last linear layer decides what PEFT says of all in `fan_in_fan_out`, so the config alone does not tell Conv1D.
    Where the input embeddings are the output layer, too, both apply an adapter on the embeddings to the output as
    well, and have no layer for one on the output. PEFT adapts the one that it names.
    """
    if profile not in ("mlx", "gguf"):
        return
    if transposed_name(source, base):
        _refuse("fan_in_fan_out", profile)
    if name := tied_name(source, base):
        raise ModelError(
            f"the adapter on {name!r} cannot be exported to profile {profile!r}: the base has the same weights as "
            "embeddings and as output layer, and PEFT adapts one of the two. Choose profile 'portable'."
        )


def transposed_name(source: Source, base: Base | None) -> str | None:
    """The name of an adapter on a Conv1D layer of GPT-2. Without a base, its names and the config have to tell."""
    named = next((pair.name for pair in source.pairs if pair.name.endswith(CONV1D)), None)
    if named and base is not None:
        return named if base.config().model_type == "gpt2" else None
    return named or (source.pairs[0].name if source.config.fan_in_fan_out else None)


def inside_name(source: Source, base: Base) -> str | None:
    """The name of an adapter on a language model that was loaded alone from a checkpoint that has more."""
    if not base.is_found() or base.config().get_text_config().model_type not in TEXT_PARTS:
        return None
    names = [pair.name for pair in source.pairs]
    return None if reads_more_than_text(names) else names[0]


def tied_name(source: Source, base: Base, known: bool = True) -> str | None:
    """The name of an adapter on the input embeddings or the output layer, where the base has one weight for both.

    Args:
        source: The adapter.
        base: Its base.
        known: Whether the base must be there to be asked; otherwise one that is not found is taken to have one weight.

    Raises:
        ModelError: If the base must be there and is not found.
    """
    ends = [pair.name for pair in source.pairs if pair.kind == "embedding" or f".{pair.name}".endswith(".lm_head")]
    outside = {pair.name for pair in source.pairs if not any(part.isdecimal() for part in pair.name.split("."))}
    if not (ends or outside):
        return None
    if not known and not base.is_found():
        return next(iter(ends), None)
    if not base.is_tied():
        return None
    if ends:
        return ends[0]
    skeleton = base.skeleton()
    output = getattr(skeleton, "get_output_embeddings", lambda: None)()
    return next((name for name, module in skeleton.named_modules() if module is output and name in outside), None)
