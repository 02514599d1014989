"""Models whose lower blocks are frozen, and batches of examples of several lengths in a new order each epoch."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from models import adamw, tiny_bert
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

EXAMPLES, SIZE = 12, 4
STEPS = EXAMPLES // SIZE  # an epoch


def upper(base: nn.Module, first: int = 2, **lora) -> PeftModel:
    """LoRA on the linear modules of block `first` and those above; no B is zero."""
    torch.manual_seed(1)
    blocks = {str(place) for place in range(first, 8)}
    linear = [name for name, module in base.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    names = [name for name in linear if blocks & set(name.split("."))]
    return get_peft_model(base, LoraConfig(r=2, target_modules=names, init_lora_weights=False, **lora))


def upper_bert(first: int = 2, dropout: float = 0.0) -> PeftModel:
    return upper(tiny_bert(4, dropout), first, task_type="SEQ_CLS")


def examples() -> list[Tensor]:
    """Token ids of 4 to 10 tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 11, (EXAMPLES,), generator=generator).tolist()
    return [torch.randint(4, 50, (length,), generator=generator) for length in lengths]


def padded(rows: list[Tensor], causal: bool = False, left: bool = False) -> dict[str, Tensor]:
    """A batch, padded to its longest row."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        start = length - len(row) if left else 0
        ids[place, start : start + len(row)] = row
        mask[place, start : start + len(row)] = 1
    labels = torch.where(mask == 1, ids, -100) if causal else torch.stack([row[0] % 2 for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def epoch(number: int, **how) -> Iterator[dict[str, Tensor]]:
    order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(number)).tolist()
    rows = examples()
    for start in range(0, EXAMPLES, SIZE):
        yield padded([rows[place] for place in order[start : start + SIZE]], **how)


def losses_on(model: nn.Module, batches: Iterable[dict[str, Any]], optimizer=None) -> list[float]:
    """Train on batches, and return the loss of each step."""
    optimizer = adamw(model) if optimizer is None else optimizer
    model.train()
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def losses_of(model: nn.Module, epochs: int = 3, start: int = 0, optimizer=None, **how) -> list[float]:
    """Train, and return the loss of each step."""
    return losses_on(model, (batch for number in range(start, epochs) for batch in epoch(number, **how)), optimizer)


def count_runs(module: nn.Module, then: Callable[[], Any] = lambda: None) -> list[int]:
    """A list that grows with each time that the module runs. The cache refuses hooks."""
    runs: list[int] = []
    forward = module.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        then()
        return forward(*args, **kwargs)

    module.forward = counted
    return runs
