"""What a probe leaves behind: nothing, in a data loader, in its parts, in a criterion, and in running statistics."""

import copy
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from models import adamw, batch, lora_bert, tiny_llama
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaForCausalLM

from weightlora import WeightLora, WeightLoraConfig

GRADIENT = WeightLoraConfig(keep=3, probe_batches=2)
MEMORY = WeightLoraConfig(keep_memory="1GiB", probe_batches=2)


class Criterion(nn.Module):
    """A loss with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def of(self, model: nn.Module):
        def loss(one: dict[str, Tensor]) -> Tensor:
            inputs = {name: value for name, value in one.items() if name != "labels"}
            return nn.functional.cross_entropy(model(**inputs).logits * self.temperature, one["labels"])

        return loss


@pytest.mark.parametrize("config", [GRADIENT, MEMORY], ids=["gradient", "memory"])
@pytest.mark.parametrize("before", [None, torch.tensor(0.5)])
def test_a_criterion_with_weights_of_its_own_has_the_gradient_of_before(config, before):
    """Otherwise the first step would move them along the probe's gradients, which are a thousand times as large."""
    model, criterion = lora_bert(), Criterion()
    trained = [p for p in [*model.parameters(), *criterion.parameters()] if p.requires_grad]
    criterion.temperature.grad = before
    WeightLora(model, torch.optim.AdamW(trained), config).probe([batch(0), batch(1)], criterion.of(model))
    assert criterion.temperature.grad is before and before in (None, 0.5)


class Rows(Dataset):
    """Twenty examples, each with its number as the first token; the second is drawn by a generator of its own."""

    def __init__(self) -> None:
        self.drawn = np.random.default_rng(3), np.random.RandomState(3), random.Random(3)
        self.first, self.second, self.third = self.drawn
        self.file = None

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.file = self.file or object()  # opened when it is needed
        found = {name: value[index % 8].clone() for name, value in batch().items()}
        drawn = self.first.integers(2, 20) + self.second.randint(15) + self.third.randrange(15)
        found["input_ids"][:2] = torch.tensor([index, drawn])
        return found


def what_follows(loader, probes: bool) -> list[list[int]]:
    """The batches of two epochs, perhaps after a probe, and a number drawn after them."""
    model = lora_bert()
    selector = WeightLora(model, adamw(model), GRADIENT)
    torch.manual_seed(5)
    if probes:
        selector.probe(loader)
    seen = [one["input_ids"][:, :2].flatten().tolist() for _ in range(2) for one in loader]
    return [*seen, torch.rand(1).tolist()]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_that_draws_by_itself_and_workers_that_stay_begin_anew(workers):
    def loader() -> DataLoader:
        return DataLoader(Rows(), 4, shuffle=True, num_workers=workers, persistent_workers=bool(workers))

    assert what_follows(loader(), probes=True) == what_follows(loader(), probes=False)


@pytest.mark.parametrize("size", [10, 20])
def test_a_prepared_loader_that_the_probe_reads_to_its_end_begins_with_the_same_epoch(size):
    """Accelerate counts the epochs, and shuffles by their number."""
    seen = []
    for probes in (False, True):
        loader = Accelerator(cpu=True).prepare(DataLoader(Rows(), size, shuffle=True))
        seen.append(what_follows(loader, probes))
    assert seen[0] == seen[1] and seen[0][0] != sorted(seen[0][0])


def test_running_statistics_that_are_no_norms_are_as_before():
    """Spectral normalisation moves two buffers in each forward pass."""
    layers = {"first": nn.Linear(4, 4), "norm": spectral_norm(nn.Linear(4, 4)), "last": nn.Linear(4, 1)}
    peft = get_peft_model(nn.Sequential(OrderedDict(layers)), LoraConfig(r=2, target_modules=["first", "last"]))
    before = {name: value.clone() for name, value in peft.named_buffers()}
    selector = WeightLora(peft, adamw(peft), WeightLoraConfig(keep=2, probe_batches=1))
    selector.probe([torch.randn(8, 4)], loss=lambda x: peft(x).square().mean())
    assert before and all(torch.equal(value, before[name]) for name, value in peft.named_buffers())


class Counting(nn.Module):
    """Has a state of each kind, which a forward pass changes in place, or by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("counts", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("longest", torch.zeros(2))
        self.steps, self.rate = 0, 0.5

    def forward(self, x: Tensor) -> Tensor:
        self.counts += 1
        self.seen[:] = True
        self.longest = self.longest + x.shape[0]
        self.steps, self.rate = self.steps + 1, self.rate / 2
        return self.linear(x)


def test_buffers_and_numbers_are_as_before_whatever_their_kind():
    peft = get_peft_model(Counting(), LoraConfig(r=2, target_modules=["linear"]))
    inside = peft.base_model.model
    before = inside.longest
    WeightLora(peft, adamw(peft), WeightLoraConfig(keep=1)).probe([torch.randn(8, 4)], loss=lambda x: peft(x).mean())
    assert inside.longest is before
    assert not any(bool(buffer.any()) for buffer in (inside.counts, inside.seen, inside.longest))
    assert (inside.steps, inside.rate) == (0, 0.5)


class Remembering(nn.Module):
    """Holds what it has seen in attributes that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.ready, self.table = False, None
        self.moving, self.means, self.named = torch.zeros(4), [], {}

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            self.table, self.ready = torch.ones(4), True
        if not hasattr(self, "last"):
            self.last = torch.zeros(4)
        before = self.last + self.moving + sum(self.means) + self.named.get("mean", 0)
        mean = self.last = self.named["mean"] = x.mean(0)
        self.moving += mean
        self.means.append(mean)
        return self.linear(x * self.table + before)


def test_attributes_of_modules_are_as_before_whatever_their_kind():
    """A switch that stayed on would leave the table unmade, and the model would fail in its first step."""
    peft = get_peft_model(Remembering(), LoraConfig(r=2, target_modules=["linear"]))
    fresh = copy.deepcopy(peft)
    x = torch.randn(8, 4)
    WeightLora(peft, adamw(peft), WeightLoraConfig(keep=1)).probe([x, x], loss=lambda x: peft(x).mean())
    assert torch.equal(peft(x), fresh(x))


def test_positions_that_a_long_text_has_stretched_are_as_before():
    config = tiny_llama(layers=1).config
    config.max_position_embeddings = 8
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    short, long = (torch.arange(length)[None] % 16 for length in (6, 12))
    with torch.no_grad():
        before = model(input_ids=short).logits
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=2))
    selector.probe([{"input_ids": long, "labels": long}])
    with torch.no_grad():
        assert torch.equal(model(input_ids=short).logits, before)
