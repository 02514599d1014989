"""Which examples a call of the model is about: a key of each one's content, and where its tokens are."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = frozenset({"logits_to_keep", "num_items_in_batch", "return_dict"})
"""Arguments that change nothing of what the blocks compute."""

USUAL = IGNORED | {"use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}
"""Arguments that say nothing where they are False."""


@dataclass(frozen=True)
class Rows:
    """The examples of a batch.

    Attributes:
        keys: A digest of each example's content up to its last token.
        ends: Tokens of each up to its last one. Padding on the left counts, because a loss may reach its last place.
        length: Tokens of a row with its padding.
        precision: Of autocast; None without it. It is a part of the keys.
    """

    keys: list[bytes]
    ends: list[int]
    length: int
    precision: torch.dtype | None

    def padding(self) -> Tensor:
        """Which places of shape `(examples, length)` are behind the last token."""
        return torch.arange(self.length, device="cpu") >= torch.tensor(self.ends, device="cpu")[:, None]


def rows_of(
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    adapters: str = "",
    ropes: Mapping[str, int] | None = None,
    use_cache: bool = False,
) -> Rows | str:
    """The examples of a call; the reason, if hidden states of single examples cannot be told from its arguments.

    Besides `input_ids` of shape `(examples, length)`, a call may have a mask of that shape, and anything else with a
    value for each token, such as `token_type_ids`. Generation, embeddings instead of tokens, masks of more dimensions
    and calls that ask for hidden states or attentions of all blocks give a reason.

    Args:
        signature: Of the module's forward.
        args: Positional arguments.
        kwargs: The others.
        adapters: Those that are switched on below the cut. They are a part of the keys.
        ropes: Of the model, from `ropes_of`.
        use_cache: Of its config, where the call says nothing.
    """
    try:
        given = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        return str(error)
    given |= next((given.pop(p.name, {}) for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), {})
    ids, mask = given.pop("input_ids", None), given.pop("attention_mask", None)
    if not isinstance(ids, Tensor) or ids.dim() != 2 or not ids.numel():
        return "they have no input_ids of shape (examples, tokens)"
    columns = {"input_ids": ids} | ({} if mask is None else {"attention_mask": mask})
    columns |= {k: v for k, v in given.items() if v is not None and v is not False and k not in IGNORED}
    off = sorted(k for k, v in given.items() if v is False and k not in USUAL)
    for name, value in columns.items():
        if not isinstance(value, Tensor):
            what = f"={value}" if isinstance(value, (bool, int, float, str)) else f", a {type(value).__name__},"
            return f"{name}{what} may change what the blocks compute"
        fits = value.dim() >= 2 and value.shape[1] == ids.shape[1] and value.shape[0] in (1, len(ids))
        if not fits or name.startswith("encoder_"):  # which is as long by accident
            return f"{name} does not have a value for each token of an example"
    if mask is not None and (mask.shape != ids.shape or not (mask != 0).any(1).all()):
        return "attention_mask is not of the shape of input_ids, or masks all of an example"
    places = columns.get("position_ids")
    keeps = use_cache if given.get("use_cache") is None else given["use_cache"]
    if mask is None and places is not None and keeps and (places.diff(dim=1) != 1).any():
        return (
            "position_ids that do not count up by 1 stand for texts that are packed into a row, and these see each "
            "other unless model.config.use_cache=False"
        )
    stretched = []
    if ropes:
        reach = int(columns["position_ids"].max()) + 1 if "position_ids" in columns else ids.shape[1]
        stretched = [kind for kind, length in ropes.items() if reach > length]
        if "dynamic" in stretched:
            return f"with rope_type 'dynamic', texts beyond {ropes['dynamic']} tokens depend on the batches before"
    return _rows(columns, len(ids), f"{adapters}{stretched}{off or ''}")


def mixed(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with the tokens of its `input_ids` in another order."""
    place = list(signature.parameters).index("input_ids")
    ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[place]
    order = torch.randperm(ids.numel(), generator=torch.Generator().manual_seed(0), device="cpu")
    ids = ids.flatten()[order.to(ids.device)].view_as(ids)
    if "input_ids" in kwargs:
        return args, {**kwargs, "input_ids": ids}
    return (*args[:place], ids, *args[place + 1 :]), dict(kwargs)


def ropes_of(config: Any) -> dict[str, int]:
    """The rotary embeddings of a model whose frequencies depend on the length of the batch.

    Beyond the original length, `"longrope"` has other frequencies. With `"dynamic"`, they change there with each
    longer batch, and stay changed for the next ones.

    Returns:
        Type, or type and kind of layers -> original length.
    """
    found: dict[str, int] = {}
    todo = [("", getattr(config, name, None)) for name in ("rope_parameters", "rope_scaling")]
    while todo:
        layers, settings = todo.pop()
        if not isinstance(settings, Mapping):
            continue
        todo += [(str(name), value) for name, value in settings.items()]
        kind = str(settings.get("rope_type", settings.get("type")))
        most = getattr(config, "max_position_embeddings", 0)  # a model without a limit has none of the two
        if "dynamic" in kind:
            found["dynamic"] = most
        elif kind == "longrope":
            name = "original_max_position_embeddings"
            found[f"longrope {layers}"] = settings.get(name) or getattr(config, name, None) or most
    return found


def _rows(columns: Mapping[str, Tensor], size: int, heading: str) -> Rows:
    arrays = {name: value.detach().cpu().expand(size, *value.shape[1:]) for name, value in columns.items()}
    length = arrays["input_ids"].shape[1]
    ends = [length] * size
    if "attention_mask" in arrays:
        real = arrays["attention_mask"] != 0
        ends = (length - real.flip(1).int().argmax(1)).tolist()
    kind = columns["input_ids"].device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    head = f"{precision} {[(name, str(value.dtype)) for name, value in sorted(arrays.items())]}{heading}".encode()
    numpy = [value.contiguous().view(torch.uint8).numpy() for _, value in sorted(arrays.items())]
    keys = []
    for row, end in enumerate(ends):
        digest = hashlib.blake2b(head, digest_size=16)
        for array in numpy:  # the last dimension holds bytes
            digest.update(array[row].reshape(length, -1)[:end].tobytes())
        keys.append(digest.digest())
    return Rows(keys, ends, length, precision)
