"""Which servers read an adapter as PEFT does, by their own rules for ranks and scalings, and from which rank setting.

The rules are restated from the servers' sources. A comment names the file and the version that each was read in. What
no export has, such as a regular expression in `target_modules`, has no rule.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from peft import LoraConfig

from ..mlx_names import EXPERT
from .groups import GROUPS, incomplete
from .pairs import Pair
from .source import by_pattern

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes (vllm/config/lora.py, 0.32.0)."""


EXPERTS = ("gate_up_proj", "down_proj")
"""Parameters of fused experts, of which vLLM asserts that both have a pair (vllm/lora/model_manager.py 0.32.0). Those
of Mixtral and PhiMoE it has under another name, block_sparse_moe, and leaves out (mixtral.py, phimoe.py)."""

ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
OUTPUTS = frozenset({"lm_head", "embed_out"})
"""The last parts of the names of linear layers that choose experts, and of output layers."""

LAYER = re.compile(r"layers\.\d+\.")
"""Where SGLang finds the number of a layer (sglang/srt/layers/utils/common.py 0.5.23, get_layer_id)."""

DECODER = frozenset({*GROUPS[0], *GROUPS[1], "o_proj", "down_proj"})
"""The linear layers of a Llama, whose names SGLang and TensorRT-LLM know in every model (sglang/srt/lora/utils.py,
get_default_hidden_dim; tensorrt_llm/lora_helper.py, get_default_trtllm_modules_to_hf_modules). Others they refuse, or
read in some models only."""

ENCODER = re.compile(r"(^|\.)(encoder\.|(layer|block)\.\d+\.)")
"""In the names of modules of encoders and of T5. vLLM has no DeBERTa, ELECTRA, BART and T5, and no adapters for
`BertForSequenceClassification` (vllm/model_executor/models 0.32.0). Servers were not run on the others."""

TOWER = re.compile(r"vision|visual|audio|image|projector|connector|merger|resampler|qformer")
"""In the names of modules outside the language model. vLLM adapts them if told to (vllm/config/lora.py and
`get_mm_mapping` of the models, 0.32.0). The others leave them out, or take them for modules of its layers."""


NO_GPT2 = "it has no adapters for GPT-2"  # vllm/model_executor/models/gpt2.py 0.32.0
TRANSPOSES = "it transposes A and B of the Conv1D layers of GPT-2, such as {}"


class Refused(Exception):
    """A server does not load the adapter, or not as PEFT does; the message says why."""


class Unchecked(Refused):
    """Nobody has looked whether a server reads such an adapter as PEFT does."""


class Verdict(NamedTuple):
    """What one server makes of an adapter.

    Attributes:
        server: Its name.
        alike: Whether it computes what PEFT does.
        note: With what setting, or why not.
        checked: Whether its reading of such adapters was checked; if not, `alike` is False.
    """

    server: str
    alike: bool
    note: str
    checked: bool = True


class Server(NamedTuple):
    """A restated rule.

    Attributes:
        name: Of the server.
        scalings: Gives the scaling of each pair, in order; raises `Refused` where the server does not load it.
        rank: Gives the setting that the largest rank needs.
        converts: Whether it reads the weights under names of its own, as llama.cpp does: then it does not tell
            embeddings from an output layer of the same weights.
        conv1d: Why it does not read the Conv1D layers of GPT-2, if so.
        alone: Whether it finds the modules of a language model that was loaded alone in the whole model; None if
            nobody has looked.
    """

    name: str
    scalings: Callable[[LoraConfig, Sequence[Pair], Sequence[str]], list[float]]
    rank: Callable[[int], str]
    converts: bool = False
    conv1d: str | None = None
    alone: bool | None = None


def verdicts(
    config: LoraConfig,
    pairs: Sequence[Pair],
    heads: Sequence[str] = (),
    tied: str | None = None,
    transposed: str | None = None,
    inside: str | None = None,
) -> tuple[Verdict, ...]:
    """What each server makes of a saved adapter.

    Args:
        config: PEFT's config of the adapter.
        pairs: The adapters, with the scalings that PEFT gives them.
        heads: Names of the modules that are saved whole.
        tied: An adapter on the embeddings or the output layer, where both have the same weights.
        transposed: An adapter on a Conv1D layer of GPT-2.
        inside: One on a language model that was loaded alone, where the checkpoint of the base has more than that.
    """
    rank, found = max(pair.rank for pair in pairs), []
    for server in SERVERS:
        try:
            if tied and server.converts:
                raise Refused(f"it uses {tied} for embeddings and output layer where they share a weight, or drops it")
            if transposed and server.conv1d:
                raise Refused(server.conv1d.format(transposed))
            if inside and server.alone is None:
                raise Unchecked(f"its reading of a language model that was loaded alone ({inside}) was not checked")
            if inside and not server.alone:
                raise Refused(f"it serves the whole model, where it finds no {inside}, and leaves that out")
            scalings = server.scalings(config, pairs, heads)
            wrong = [p for p, s in zip(pairs, scalings, strict=True) if not math.isclose(s, p.scaling, rel_tol=1e-6)]
            if wrong:
                count = f"{len(wrong)} of {len(pairs)} adapters"
                raise Refused(f"scales {count} otherwise than PEFT, such as {wrong[0].name}")
            found.append(Verdict(server.name, True, server.rank(rank)))
        except Refused as refusal:
            found.append(Verdict(server.name, False, str(refusal), not isinstance(refusal, Unchecked)))
    return tuple(found)


def vllm_rank(rank: int) -> int | None:
    """The smallest `--max-lora-rank` of vLLM that takes this rank; None if there is none."""
    return next((largest for largest in VLLM_RANKS if largest >= rank), None)


def _by_pattern(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    return [
        _ratio(
            by_pattern(config.alpha_pattern, pair.name, config.lora_alpha),
            by_pattern(config.rank_pattern, pair.name, config.r),
            config.use_rslora,
        )
        for pair in pairs
    ]


def _new_vllm(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    _check_vllm(pairs, heads)
    return _by_pattern(config, pairs, heads)


def _old_vllm(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    _check_vllm(pairs, heads)
    return [_ratio(config.lora_alpha, config.r, config.use_rslora)] * len(pairs)


def _check_vllm(pairs: Sequence[Pair], heads: Sequence[str]) -> None:
    _refuse_parts(pairs, "convolution")
    experts = {pair.name for pair in pairs if pair.experts and pair.blocks > 1}
    for name in sorted(experts):
        block = name.removesuffix(name.rpartition(".")[2])
        if missing := [other for other in EXPERTS if block + other not in experts]:
            raise Refused(f"it needs an adapter on {block}{missing[0]} beside {name}; profile 'merged' does not")
    for pair in pairs:
        last = pair.name.rpartition(".")[2]
        if pair.kind == "parameter" or EXPERT.search(pair.name) or last in ROUTERS:
            raise Unchecked(f"it leaves out experts and routers of some models, and {pair.name} was not checked")
        if pair.kind == "embedding" or last in OUTPUTS:
            raise Unchecked(f"some of its models take no adapter on {pair.name}, which was not checked")
    if others := [head for head in heads if head.rpartition(".")[2] not in ("classifier", "score")]:
        raise Refused(f"it reads no whole modules but classifier and score, and this adapter has {others[0]}")
    rank = max(pair.rank for pair in pairs)
    if vllm_rank(rank) is None:
        raise Refused(f"its largest --max-lora-rank is {VLLM_RANKS[-1]}, and this adapter has rank {rank}")


def _sglang(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    _refuse_parts(pairs, "convolution", "parameter")
    if heads:
        raise Refused(f"it does not read {heads[0]}, which was trained whole")
    if odd := next((pair for pair in pairs if pair.rank != config.r), None):
        raise Refused(f"it loads one rank only, {config.r}, and {odd.name} has rank {odd.rank}")
    names = {pair.name for pair in pairs}
    stacks: dict[str, str] = {}
    for name in sorted(names):
        layer = LAYER.search(name)
        if layer is not None:
            stacks.setdefault(name[: layer.start()], name)
        elif name.rpartition(".")[2] not in ("embed_tokens", "lm_head"):
            raise Refused(f"it leaves out {name}, which is in no layer of a list called layers")
    if len(stacks) > 1:
        one, other, *_ = stacks.values()
        raise Refused(f"it takes {one} and {other} for modules of the same layers")
    _refuse_others(pairs, "embed_tokens", "lm_head")
    for name in sorted(names):
        parent, _, last = name.rpartition(".")
        needed = {**dict.fromkeys(GROUPS[0], ("q_proj", "v_proj")), "up_proj": ("gate_proj",)}.get(last, ())
        if missing := [one for one in needed if f"{parent}.{one}" not in names]:
            raise Refused(f"it needs {missing[0]} beside {name}; --complete_fused adds it")
    return [_ratio(config.lora_alpha, config.r, False)] * len(pairs)


def _by_tensor(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    _refuse_parts(pairs, "convolution", "parameter")
    if heads:
        raise Refused(f"it refuses {heads[0]}, which is no LoRA tensor")
    return [_ratio(config.lora_alpha, pair.rank, False) for pair in pairs]


def _tensorrt(config: LoraConfig, pairs: Sequence[Pair], heads: Sequence[str]) -> list[float]:
    _refuse_parts(pairs, "embedding")
    names = [pair.name for pair in pairs]
    if any(f".{name}".endswith(".lm_head") for name in names):
        raise Refused("it leaves out lm_head")
    _refuse_others(pairs)
    types = {name.rpartition(".")[2] for name in names}
    for name, missing in incomplete(names).items():
        if holes := [one for one in missing if one.rpartition(".")[2] in types.intersection(GROUPS[0])]:
            raise Refused(f"it needs {holes[0]} beside {name}, since other layers have it; --complete_fused adds it")
    return _by_tensor(config, pairs, heads)


def _refuse_parts(pairs: Sequence[Pair], *kinds: str) -> None:
    words = {"convolution": "convolutions", "parameter": "fused experts", "embedding": "embeddings"}
    if found := next((pair for pair in pairs if pair.kind in kinds), None):
        raise Refused(f"it adapts no {words[found.kind]}, such as {found.name}")
    if tower := next((pair.name for pair in pairs if TOWER.search(pair.name)), None):
        raise Refused(f"it adapts no parts of a model that read images or audio, such as {tower}")
    if encoder := next((pair.name for pair in pairs if ENCODER.search(pair.name)), None):
        raise Unchecked(f"its reading of encoders, such as {encoder}, was not checked")


def _refuse_others(pairs: Sequence[Pair], *known: str) -> None:
    """Refuse linear layers whose names the server does not have for all models, or experts kept one by one."""
    for pair in pairs:
        if EXPERT.search(pair.name) or pair.name.rpartition(".")[2] not in DECODER.union(known):
            raise Unchecked(f"its reading of {pair.name} was not checked")


def _for_vllm(rank: int) -> str:
    return f"--max-lora-rank {vllm_rank(rank)}"


def _ratio(alpha: float, rank: int, rslora: bool) -> float:
    return alpha / (math.sqrt(rank) if rslora else rank)


SERVERS = (
    # peft/tuners/lora/layer.py 0.21.2, update_layer
    Server("PEFT, Transformers", _by_pattern, lambda rank: "", alone=True),
    # vllm/lora/peft_helper.py 0.32.0, get_rank_and_scaling; vllm/lora/model_manager.py 0.33.0, _get_text_lora_names
    Server("vLLM 0.33 and later", _new_vllm, _for_vllm, conv1d=NO_GPT2, alone=True),
    # vllm/model_executor/models/qwen3_vl.py 0.32.0, hf_to_vllm_mapper
    Server("vLLM 0.32", _new_vllm, _for_vllm, conv1d=NO_GPT2, alone=False),
    # vllm/lora/peft_helper.py 0.31.0, __post_init__
    Server("vLLM before 0.32", _old_vllm, _for_vllm, conv1d=NO_GPT2, alone=False),
    # sglang/srt/lora/lora.py and mem_pool.py 0.5.23, normalize_qkv_proj and load_lora_weight_tensor
    Server("SGLang", _sglang, lambda rank: f"--max-lora-rank {rank}"),
    # tensorrt_llm/lora_manager.py @007e181b, effective_rank
    Server("TensorRT-LLM", _tensorrt, lambda rank: f"max_lora_rank {rank}"),
    # convert_lora_to_gguf.py and src/llama-adapter.h in llama-cpp-python 0.3.36, get_scale; GPT2Model.modify_tensors
    Server("llama.cpp, by its converter", _by_tensor, lambda rank: "", converts=True, conv1d=TRANSPOSES),
)
