"""PEFT's variants and initialisations of LoRA: what each of them allows, and why others are refused."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from peft import LoraConfig

from ..errors import ModelError
from .handles import LoraAdapter


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


def refuse_kinds(adapters: Iterable[LoraAdapter]) -> None:
    """Raise a `ModelError` if an adapter is of a variant that cannot be taken out."""
    remedy = "use plain LoRA on this module, or leave it out of target_modules"
    _refuse(adapters, lambda variant: not variant or variant in VARIANTS, "that cannot be disconnected", remedy)


def refuse_gates(adapters: Iterable[LoraAdapter]) -> None:
    """Raise a `ModelError` if a gate of 0 would not switch one of the adapters off."""
    remedy = "set selection='credit', or use plain LoRA on this module"
    _refuse(adapters, lambda variant: VARIANTS.get(variant, PLAIN).gates, "that a gate cannot switch off", remedy)


def refuse_growth(adapters: Iterable[LoraAdapter]) -> None:
    """Raise a `ModelError` if the rank of one of the adapters cannot change."""
    _refuse(
        adapters, lambda variant: VARIANTS.get(variant, PLAIN).growth, "whose rank cannot grow", "set expand='none'"
    )


def _refuse(adapters: Iterable[LoraAdapter], fits: Callable[[str], bool], what: str, remedy: str) -> None:
    for adapter in adapters:
        if not fits(adapter.variant):
            raise ModelError(f"adapter {adapter.name!r} is of a kind {what} ({adapter.variant}): {remedy}.")
