"""PEFT's variants and initialisations of LoRA: what each of them allows, and why others are refused."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from peft import LoraConfig

from ..errors import ModelError
from .handles import LoraAdapter


class Allows(NamedTuple):
    gates: bool  # the forward pass calls lora_A as a module, and without B A x nothing of the adapter is left
    growth: bool  # the factors have plain LoRA's shapes, nothing else has the rank's, and new directions would train
    removal: bool = True  # of all that are known; other variants allow nothing


PLAIN = Allows(gates=True, growth=True)
VARIANTS = {
    "": PLAIN,
    "ALoraLinear": PLAIN,
    "BdLoraLinear": PLAIN._replace(growth=False),  # the factors hold the blocks of a block-diagonal matrix
    **dict.fromkeys(("MiCALinear", "MiCAEmbedding"), PLAIN._replace(growth=False)),  # B is frozen
    # Of DoRA, the learned magnitude would be left.
    **dict.fromkeys(("DoraLinear", "DoraEmbedding"), PLAIN._replace(gates=False)),
    **dict.fromkeys(("DoraConv1d", "DoraConv2d", "DoraConv3d"), PLAIN._replace(gates=False)),
    "VeloraLinear": PLAIN._replace(gates=False),
    "MontecloraLinear": PLAIN._replace(gates=False, growth=False),  # its sampler has the rank's size
}

REASONS = {
    "removal": ("that cannot be disconnected", "use plain LoRA on this module, or leave it out of target_modules"),
    "gates": ("that a gate cannot switch off", "set selection='credit', or use plain LoRA on this module"),
    "growth": ("whose rank cannot grow", "set expand='none'"),
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


def refuse(adapters: Iterable[LoraAdapter], need: Literal["removal", "gates", "growth"]) -> None:
    """Raise a `ModelError` if one of the adapters is of a variant that does not allow what a selection needs.

    Args:
        adapters: Of the model.
        need: To take adapters out; to switch them off by a gate of 0; or to change their rank.
    """
    what, remedy = REASONS[need]
    for adapter in adapters:
        allows = VARIANTS.get(adapter.variant)
        if allows is None or not getattr(allows, need):
            raise ModelError(f"adapter {adapter.name!r} is of a kind {what} ({adapter.variant}): {remedy}.")
