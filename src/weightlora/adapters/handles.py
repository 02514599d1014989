"""The LoRA adapters of a PEFT model, as handles. What the rest must know of PEFT's layers is known here."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from accelerate.utils import extract_model_from_parallel
from peft import LoraConfig, PeftMixedModel, PeftModel, PeftType
from peft.tuners.lora import Embedding, LoraLayer, ParamWrapper
from peft.tuners.lora.layer import MultiheadAttention
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from ..errors import ModelError
from ..saving import check_saves
from ..tensors import local, numel
from .blocks import from_blocks, to_blocks
from .variants import refuse_config, refuse_kinds, variant_of

Kind = Literal["module", "parameter"]
WRAPPED = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # what torch calls the module in a wrapper


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """One LoRA adapter: the pair `(A, B)` that one adapter name has on one layer.

    Attributes:
        name: What PEFT's config calls the adapted module (`target_modules`) or parameter (`target_parameters`).
        kind: Which of these two lists the name belongs to.
        layer: PEFT's layer around the base layer.
        adapter_name: The key of this adapter in the layer's dictionaries.
        drawn: Whether PEFT drew A at random. EVA's A is computed from data.
    """

    name: str
    kind: Kind
    layer: LoraLayer
    adapter_name: str
    drawn: bool = True

    @property
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """`(A, B)` as PEFT stores them. Linear: `(r, in)` and `(out, r)`."""
        if isinstance(self.layer, Embedding):
            return self.layer.lora_embedding_A[self.adapter_name], self.layer.lora_embedding_B[self.adapter_name]
        a, b = self.layer.lora_A[self.adapter_name], self.layer.lora_B[self.adapter_name]
        return a.get_parameter("weight"), b.get_parameter("weight")

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias of B (`lora_bias=True`), or None."""
        if isinstance(self.layer, Embedding) or not self.layer.lora_bias[self.adapter_name]:
            return None
        return self.layer.lora_B[self.adapter_name].get_parameter("bias")

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A, B, and what else the layer keeps for this adapter: the bias of B, DoRA's magnitude, a variant's own."""
        holders = [getattr(self.layer, name) for name in dict.fromkeys(self.layer.adapter_layer_names)]
        held = [holder[self.adapter_name] for holder in holders if self.adapter_name in holder]
        return [p for one in held for p in ([one] if isinstance(one, nn.Parameter) else one.parameters())]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(numel(parameter) for parameter in self.parameters)

    @property
    def rank(self) -> int:
        rank: int = self.layer.r[self.adapter_name]
        return rank

    @property
    def scaling(self) -> float:
        """The factor s before `B A x`."""
        scaling: float = self.layer.scaling[self.adapter_name]
        return scaling

    @property
    def rslora(self) -> bool:
        """Whether s is alpha / sqrt(r), and not alpha / r."""
        return self.layer.use_rslora[self.adapter_name]

    @property
    def variant(self) -> str:
        """PEFT's name for its variant of LoRA; empty for plain LoRA."""
        return variant_of(self.layer, self.adapter_name)

    @property
    def blocks(self) -> int:
        """Independent low-rank products inside this adapter: experts, or groups of a convolution; else 1."""
        if isinstance(self.layer, ParamWrapper):
            return int(self.layer.num_experts)
        return int(getattr(self.layer.get_base_layer(), "groups", 1))

    @property
    def rank_unit(self) -> int:
        """What the rank must be a multiple of: PEFT spreads it over the groups of a convolution."""
        return 1 if isinstance(self.layer, ParamWrapper) else self.blocks

    @property
    def max_rank(self) -> int:
        """Above this rank `B A` gains nothing."""
        a, b = (self.to_blocks(i, factor.detach()) for i, factor in enumerate(self.factors))
        return min(a.shape[2], b.shape[1]) * self.rank_unit

    def to_blocks(self, which: int, tensor: Tensor) -> Tensor:
        """View a tensor laid out like A (`which=0`) as `(blocks, r, in)`, like B (`which=1`) as `(blocks, out, r)`."""
        return to_blocks(which, tensor, self.blocks, isinstance(self.layer, ParamWrapper))

    def from_blocks(self, which: int, blocks: Tensor) -> Tensor:
        """The inverse of `to_blocks`, for any rank."""
        return from_blocks(which, blocks, self.factors[which].shape, isinstance(self.layer, ParamWrapper))

    def set_factors_(self, a: nn.Parameter, b: nn.Parameter, rank: int) -> None:
        """Put new factors of another rank into the layer; the scaling is kept, alpha follows it."""
        name, layer = self.adapter_name, self.layer
        if isinstance(layer, Embedding):
            layer.lora_embedding_A[name], layer.lora_embedding_B[name] = a, b
        else:
            layer.lora_A[name].weight, layer.lora_B[name].weight = a, b
            width = "channels" if isinstance(layer.lora_A[name], nn.modules.conv._ConvNd) else "features"
            setattr(layer.lora_A[name], f"out_{width}", a.shape[0])
            setattr(layer.lora_B[name], f"in_{width}", a.shape[0])
        layer.r[name] = rank
        self.set_scaling_(self.scaling)

    @property
    def magnitude(self) -> nn.Parameter | None:
        """DoRA's learned norm of each row of the weight, or None."""
        magnitudes: Any = self.layer.lora_magnitude_vector
        return magnitudes[self.adapter_name].weight if self.adapter_name in magnitudes else None

    def weight_norm(self) -> Tensor:
        """The norms by which DoRA divides its magnitude, `||W + s B A||` by rows, in the magnitude's shape."""
        dora: Any = self.layer.lora_magnitude_vector[self.adapter_name]
        fresh = type(dora)(dora.fan_in_fan_out)  # PEFT computes them where a magnitude begins
        a, b = (factor.detach() for factor in self.factors)
        fresh.update_layer(base_layer=self.layer.get_base_layer(), lora_A=a, lora_B=b, scaling=self.scaling)
        norm: Tensor = fresh.weight.detach()
        return norm

    def set_magnitude_(self, magnitude: nn.Parameter) -> None:
        """Put another magnitude into a DoRA layer."""
        dora: Any = self.layer.lora_magnitude_vector[self.adapter_name]
        dora.weight = magnitude

    def set_scaling_(self, scaling: float) -> None:
        """Set s, and the alpha that gives s at this rank (`s r`, or `s sqrt(r)` with rsLoRA)."""
        root = math.sqrt(self.rank) if self.rslora else self.rank
        alpha = scaling * root
        whole = round(alpha)
        self.layer.lora_alpha[self.adapter_name] = whole if whole / root == scaling else alpha
        self.layer.scaling[self.adapter_name] = scaling


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of DDP and `torch.compile`."""
    if isinstance(model, PeftModel | BaseTuner) and "_orig_mod" not in model.__dict__:
        return model  # Accelerate would look at every module inside it first
    inside: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False)
    return inside


def base_model_of(model: nn.Module) -> nn.Module:
    """The model whose module names PEFT's config speaks of, freed from wrappers (DDP, torch.compile, PEFT's own)."""
    model = unwrap_model(model)
    if isinstance(model, PeftModel):
        return model.get_base_model()
    return model.model if isinstance(model, BaseTuner) else model


def own_name(name: str) -> str:
    """A module's name as it was before FSDP1 and its activation checkpointing wrapped modules inside the model."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def tuner_of(model: nn.Module) -> BaseTuner | None:
    """PEFT's tuner, which keeps lists of its own of what it adapted; None where PEFT was injected without one."""
    model = unwrap_model(model)
    tuner = model.base_model if isinstance(model, PeftModel) else model
    return tuner if isinstance(tuner, BaseTuner) else None


def lora_config_of(model: nn.Module, adapter_name: str) -> LoraConfig:
    """PEFT's config of the named adapter.

    Raises:
        ModelError: If the model has no such adapter, or it is not LoRA.
    """
    configs = getattr(inside := unwrap_model(model), "peft_config", None)
    if isinstance(inside, PeftMixedModel):
        raise ModelError(
            "the model is a PeftMixedModel, which PEFT cannot save: call get_peft_model without mixed=True."
        )
    if not configs:
        raise ModelError(
            f"{type(model).__name__} has no PEFT adapters: call model = get_peft_model(base, LoraConfig(...)) first."
        )
    if adapter_name not in configs:
        raise ModelError(f"adapter_name={adapter_name!r} is not on the model: it has {', '.join(map(repr, configs))}.")
    config: LoraConfig = configs[adapter_name]
    if config.peft_type != PeftType.LORA:
        raise ModelError(
            f"adapter {adapter_name!r} is {config.peft_type}, and only LoRA can be selected: use a LoraConfig for it."
        )
    return config


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
    drawn = lora_config_of(model, adapter_name).init_lora_weights in (True, "gaussian")
    adapters = [_handle(name, layer, adapter_name, drawn) for name, layer in layers if adapter_name in layer.scaling]
    if check:
        if not adapters:
            raise ModelError(f"adapter {adapter_name!r} adapts no module: check target_modules of its LoraConfig.")
        if compiled := [adapter.name for adapter in adapters if "_orig_mod" in adapter.name.split(".")]:
            raise ModelError(
                f"adapter {compiled[0]!r} is in a block that torch.compile() wraps, and PEFT would save it under this "
                "name, which no other model has: call block.compile() instead, or compile the whole model."
            )
        refuse_config(lora_config_of(model, adapter_name))
        refuse_kinds(adapters)
        check_saves(base_model_of(model), (adapter.name for adapter in adapters))
        for adapter in adapters:
            _refuse_state(adapter)
        _refuse_shared(adapters)
    return adapters


def _handle(module_name: str, layer: LoraLayer, adapter_name: str, drawn: bool) -> LoraAdapter:
    if isinstance(layer, ParamWrapper):  # wrappers of several parameters of one module are nested in one another
        name = f"{module_name.replace('.base_layer', '')}.{layer.parameter_name}"
        return LoraAdapter(name, "parameter", layer, adapter_name, drawn)
    return LoraAdapter(module_name, "module", layer, adapter_name, drawn)


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


def _refuse_state(adapter: LoraAdapter) -> None:
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
    if adapter.layer.merged:
        raise ModelError(f"adapter {adapter.name!r} is merged into its base layer: call model.unmerge_adapter().")
    if not any(parameter.requires_grad for parameter in adapter.parameters):
        raise ModelError(
            f"adapter {adapter.name!r} has no trainable parameter: load it with is_trainable=True, or activate it."
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
