"""The LoRA adapters that a PEFT model has, and why some cannot be chosen among."""

from collections import Counter
from typing import Any

from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.lora.layer import MultiheadAttention
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from torch import nn

from ..errors import ModelError
from ..tensors import local
from .handles import LoraAdapter
from .models import base_model_of, lora_config_of, own_name, unwrap_model
from .variants import refuse, refuse_config


def find_adapters(model: nn.Module, adapter_name: str | None = None, check: bool = True) -> list[LoraAdapter]:
    """Every LoRA adapter of one adapter name, in the order of `named_modules`.

    Args:
        model: A PEFT model, or a Transformers model with a LoRA adapter added, wrapped (DDP, compile) or not.
        adapter_name: None takes the active one.
        check: Refuse what cannot be disconnected. Off, everything is listed.

    Raises:
        ModelError: If there is none, the name is unknown, or an adapter is of a kind that cannot be disconnected.
    """
    layers = [
        (own_name(name), module)
        for name, module in base_model_of(model).named_modules()
        if isinstance(module, LoraLayer) and ".modules_to_save." not in f".{name}."
    ]
    if adapter_name is None:
        adapter_name = _active_adapter(model, [layer for _, layer in layers])
    config = lora_config_of(model, adapter_name)
    drawn = config.init_lora_weights in (True, "gaussian")
    adapters = [_handle(name, layer, adapter_name, drawn) for name, layer in layers if adapter_name in layer.scaling]
    if check:
        if not adapters:
            raise ModelError(f"adapter {adapter_name!r} adapts no module: check target_modules of its LoraConfig.")
        if compiled := [adapter.name for adapter in adapters if "_orig_mod" in adapter.name.split(".")]:
            raise ModelError(
                f"adapter {compiled[0]!r} is in a block that torch.compile() wraps, and PEFT would save it under this "
                "name, which no other model has: call block.compile() instead, or compile the whole model."
            )
        refuse_config(config)
        refuse(adapters, "removal")
        refuse_unsaved(base_model_of(model), [adapter.name for adapter in adapters])
        for adapter in adapters:
            _refuse_state(adapter, config.bias)
        _refuse_shared(adapters)
    return adapters


def _handle(module_name: str, layer: Any, adapter_name: str, drawn: bool) -> LoraAdapter:
    wraps = isinstance(layer, ParamWrapper)  # wrappers of several parameters of one module are nested in one another
    name = f"{module_name.replace('.base_layer', '')}.{layer.parameter_name}" if wraps else module_name
    return LoraAdapter(name, "parameter" if wraps else "module", layer, adapter_name, drawn)


def _active_adapter(model: nn.Module, layers: list[LoraLayer]) -> str:
    if not layers:  # says what is missing: PEFT, or LoRA
        configs = getattr(unwrap_model(model), "peft_config", None) or {}
        lora_config_of(model, next(iter(configs), ""))
    active = list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))
    if len(active) != 1:
        raise ModelError(
            f"{len(active)} adapters are active ({active}), and the modules of one are chosen: set adapter_name."
        )
    return str(active[0])


def refuse_unsaved(base: Any, names: list[str]) -> None:
    """Raise a `ModelError` if adapters on modules of these names, of this base model, could not be saved.

    PEFT takes a module for an embedding if its name is that of one (`lm_head`), and saves the model's input embeddings
    with its adapter. A CTC model of speech has an `lm_head`, and no embeddings.
    """
    ends = [name for name in names if name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES]
    if not ends or not hasattr(base, "get_input_embeddings"):
        return
    try:
        base.get_input_embeddings()
    except NotImplementedError as error:
        raise ModelError(
            f"adapter {ends[0]!r} could not be saved: PEFT takes a module of this name for an embedding and saves the "
            f"input embeddings with it, but {type(base).__name__} has none. Move it to modules_to_save."
        ) from error


def _refuse_state(adapter: LoraAdapter, bias: str) -> None:
    if isinstance(adapter.layer, MultiheadAttention):
        raise ModelError(
            f"adapter {adapter.name!r} is on nn.MultiheadAttention, where two LoRA layers share one name, so neither "
            "can be disconnected alone: leave it out of target_modules."
        )
    inner, name = adapter.layer.base_layer, adapter.adapter_name
    if isinstance(inner, ParamWrapper) and (others := sorted({*inner.scaling, *adapter.layer.scaling} - {name})):
        # PEFT nests the wrappers of several parameters of one module, and saves an adapter by its place among them.
        raise ModelError(
            f"adapters {name!r} and {others[0]!r} are both on several parameters of "
            f"{adapter.name.rpartition('.')[0]}, so none can be disconnected and saved alone: call "
            f"model.delete_adapter({others[0]!r}) first, and load it again after training."
        )
    if bias == "all" and len(adapter.layer.scaling) > 1 and getattr(inner, "bias", None) is not None:
        raise ModelError(
            f"bias='all' cannot be combined with a selection while {len(adapter.layer.scaling)} adapters are "
            f"on {adapter.name!r}: PEFT does not load the trained bias of a module that another adapter alone is on. "
            "Set bias='none', or call model.delete_adapter() for the others first, and load them again after training."
        )
    if adapter.layer.merged:
        raise ModelError(f"adapter {adapter.name!r} is merged into its base layer: call model.unmerge_adapter().")
    if not any(parameter.requires_grad for parameter in adapter.parameters):
        raise ModelError(
            f"adapter {adapter.name!r} has no trainable parameter: load it with is_trainable=True, or activate it. If "
            "you froze it on purpose, name its module in exclude_modules of the LoraConfig."
        )


def _refuse_shared(adapters: list[LoraAdapter]) -> None:
    # by the first entry: FSDP1 and DeepSpeed keep many parameters in one storage
    owners = Counter(local(parameter).data_ptr() for a in adapters for parameter in a.parameters)
    for adapter in adapters:
        for parameter in adapter.parameters:
            pointer = local(parameter).data_ptr()
            if pointer and parameter.device.type != "meta" and owners[pointer] > 1:
                raise ModelError(
                    f"adapter {adapter.name!r} shares a parameter with another adapter, so neither can be "
                    "disconnected alone: leave one of the tied modules out of target_modules."
                )
