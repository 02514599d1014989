"""PEFT's variants and initialisations of LoRA: what each of them allows, and why others are refused."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from peft import LoraConfig

from ..errors import ModelError


class Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def variant(self) -> str: ...


class Allows(NamedTuple):
    gates: bool  # the forward pass calls lora_A as a module, and without B A x nothing of the adapter is left
    growth: bool  # the factors have plain LoRA's shapes, nothing else has the rank's, and new directions would train


PLAIN = Allows(gates=True, growth=True)
VARIANTS = {
    "ALoraLinear": PLAIN,
    "BdLoraLinear": Allows(gates=True, growth=False),  # the factors hold the blocks of a block-diagonal matrix
    **dict.fromkeys(("MiCALinear", "MiCAEmbedding"), Allows(gates=True, growth=False)),  # B is frozen
    # Of DoRA, the learned magnitude would be left.
    **dict.fromkeys(("DoraLinear", "DoraEmbedding"), Allows(gates=False, growth=True)),
    **dict.fromkeys(("DoraConv1d", "DoraConv2d", "DoraConv3d"), Allows(gates=False, growth=True)),
    "VeloraLinear": Allows(gates=False, growth=True),
    "MontecloraLinear": Allows(gates=False, growth=False),  # its sampler has the rank's size
}

RESIDUAL = "moves a part of the base weights into the adapter, which would leave with it"
UNSERVED_INITS = {
    **dict.fromkeys(("pissa", "olora", "corda", "lora_ga"), RESIDUAL),
    "loftq": "quantizes the base weights and puts the correction into the adapter, which would leave with it",
}


def variant_of(layer: Any, adapter_name: str) -> str:
    """PEFT's name for the variant of LoRA that one adapter of a layer is, as `"DoraLinear"`; empty for plain LoRA."""
    variant = layer.lora_variant.get(adapter_name)
    return "" if variant is None else type(variant).__name__.removesuffix("Variant")


def refuse_config(config: LoraConfig) -> None:
    """Raise a `ModelError` if a module would not be what it was, or not be saved, once its adapter is gone."""
    init = config.init_lora_weights
    for prefix, reason in UNSERVED_INITS.items():
        if isinstance(init, str) and init.lower().startswith(prefix):
            raise ModelError(
                f"init_lora_weights={init!r} cannot be combined with a selection: it {reason}. Choose with the "
                "default initialisation, and train the chosen modules with this one."
            )
    if config.bias == "lora_only":
        raise ModelError(
            "bias='lora_only' cannot be combined with a selection: PEFT does not save the trained bias of a module "
            "whose adapter is gone. Set bias='all' or bias='none'."
        )


def refuse_kinds(adapters: Iterable[Named]) -> None:
    """Raise a `ModelError` if an adapter is of a variant that cannot be taken out."""
    for adapter in adapters:
        if adapter.variant and adapter.variant not in VARIANTS:
            raise ModelError(
                f"adapter {adapter.name!r} is of a kind that cannot be disconnected ({adapter.variant}): "
                "use plain LoRA on this module, or leave it out of target_modules."
            )


def refuse_gates(adapters: Iterable[Named]) -> None:
    """Raise a `ModelError` if a gate of 0 would not switch one of the adapters off."""
    for adapter in adapters:
        if not VARIANTS.get(adapter.variant, PLAIN).gates:
            raise ModelError(
                f"adapter {adapter.name!r} is of a kind that a gate cannot switch off ({adapter.variant}): "
                "set selection='credit', or use plain LoRA on this module."
            )


def refuse_growth(adapters: Iterable[Named]) -> None:
    """Raise a `ModelError` if the rank of one of the adapters cannot change."""
    for adapter in adapters:
        if not VARIANTS.get(adapter.variant, PLAIN).growth:
            raise ModelError(
                f"adapter {adapter.name!r} is of a kind whose rank cannot grow ({adapter.variant}): set expand='none'."
            )
