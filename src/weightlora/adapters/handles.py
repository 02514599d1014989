"""One LoRA adapter of a PEFT model, as a handle. What the rest must know of PEFT's layers is known here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft.tuners.lora import Embedding, LoraLayer, ParamWrapper
from torch import Tensor, nn

from ..tensors import numel

Kind = Literal["module", "parameter"]


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
    drawn: bool

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
        return int(self.layer.r[self.adapter_name])

    @property
    def scaling(self) -> float:
        """The factor s before `B A x`."""
        return float(self.layer.scaling[self.adapter_name])

    @property
    def rslora(self) -> bool:
        """Whether s is alpha / sqrt(r), and not alpha / r."""
        return self.layer.use_rslora[self.adapter_name]

    @property
    def variant(self) -> str:
        """PEFT's name for its variant of LoRA, such as `"DoraLinear"`; empty for plain LoRA."""
        variant = self.layer.lora_variant.get(self.adapter_name)
        return "" if variant is None else type(variant).__name__.removesuffix("Variant")

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

    def set_scaling_(self, scaling: float) -> None:
        """Set s, and the alpha that gives s at this rank (`s r`, or `s sqrt(r)` with rsLoRA)."""
        root = math.sqrt(self.rank) if self.rslora else self.rank
        alpha = scaling * root
        whole = round(alpha)
        self.layer.lora_alpha[self.adapter_name] = whole if whole / root == scaling else alpha
        self.layer.scaling[self.adapter_name] = scaling


def to_blocks(which: int, tensor: Tensor, blocks: int, experts: bool) -> Tensor:
    """View a tensor laid out like A (`which=0`) as `(blocks, r, in)`, like B (`which=1`) as `(blocks, out, r)`.

    Args:
        which: 0 for A, 1 for B.
        tensor: As PEFT stores it. The dimensions of a convolution's kernel become a part of `in`.
        blocks: The number of independent products: experts, or groups of a convolution; else 1.
        experts: Whether they are experts. PEFT keeps them last in B, but first in A.
    """
    if which == 1 and experts:
        return tensor.reshape(tensor.shape[0], -1, blocks).permute(2, 0, 1)
    return tensor.reshape(blocks, tensor.shape[0] // blocks, -1)


def from_blocks(which: int, tensor: Tensor, shape: Sequence[int], experts: bool) -> Tensor:
    """The inverse of `to_blocks`, for any rank.

    Args:
        which: 0 for A, 1 for B.
        tensor: `(blocks, r, in)` or `(blocks, out, r)`.
        shape: That of PEFT's tensor, at some rank.
        experts: Whether the blocks are experts.
    """
    if which == 0:
        return tensor.reshape(-1, *shape[1:])
    if experts:
        return tensor.permute(1, 2, 0).reshape(shape[0], -1)
    return tensor.reshape(shape[0], -1, *shape[2:])
