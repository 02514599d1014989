"""A data loader that was read gives the batches that it would have given."""

import random
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from models import WORDS, batch, save_tokenizer
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from weightlora.loaders import same_batches


class Epochs(IterableDataset):
    """Shuffles by the number of its epoch, which it counts itself."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        for i in torch.randperm(20, generator=torch.Generator().manual_seed(self.epoch)).tolist():
            yield {name: value[i % 8] + i * (name == "input_ids") for name, value in batch(size=8).items()}


def test_a_stream_that_counts_its_epochs_begins_with_the_first():
    data = Epochs()
    for loader in (DataLoader(data, 4), data):
        with same_batches(loader):
            first = next(iter(loader))["input_ids"]
        assert torch.equal(next(iter(loader))["input_ids"], first)


@pytest.mark.parametrize("place", [{"row": 0}, torch.tensor(0)], ids=["a dictionary", "a tensor"])
def test_a_stream_that_keeps_its_place_goes_on_from_there(place):
    class Stream(IterableDataset):
        place: object

        def __iter__(self):
            for _ in range(20):
                if isinstance(self.place, dict):
                    self.place["row"] += 1
                    yield self.place["row"]
                else:
                    self.place += 1
                    yield int(self.place)

    data = Stream()
    data.place = place
    loader = DataLoader(data, 4)
    with same_batches(loader):
        assert next(iter(loader)).tolist() == [1, 2, 3, 4]
    assert next(iter(loader)).tolist() == [1, 2, 3, 4]


def test_a_collator_with_a_seed_masks_as_it_would_have_masked(tmp_path: Path):
    save_tokenizer(tmp_path, WORDS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, mask_token="[UNK]")
    rows = [{"input_ids": batch(i)["input_ids"][0] % 14} for i in range(8)]
    masked = []
    for reads in (False, True):
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=1)
        loader = DataLoader(rows, 4, collate_fn=collator)
        if reads:
            with same_batches(loader):
                next(iter(loader))
        masked.append([one["labels"].tolist() for one in loader])
    assert masked[0] == masked[1]


def test_an_iterator_and_a_class_that_collates_are_left_alone():
    loader = DataLoader([torch.tensor(i) for i in range(6)], 2, collate_fn=tuple)
    iterator = iter(loader)
    for source in (loader, iterator):
        with same_batches(source):
            assert next(iter(source))
    assert len(list(iterator)) == 2


class Noisy(Dataset):
    """Its numbers are drawn by a generator that something else holds."""

    def __init__(self, **parts) -> None:
        vars(self).update(parts)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        drawn = self.transform(index) if hasattr(self, "transform") else self.generators[0].random()
        return torch.tensor(float(drawn))


class Noise:
    """A transform with a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, index: int) -> float:
        return self.rng.random()


class Shuffled(Sampler):
    """Shuffles its rows where they are, or puts others in their place."""

    def __init__(self, rows, anew: bool) -> None:
        self.rows, self.anew, self.rng = rows, anew, random.Random(0)

    def __iter__(self):
        if self.anew:
            self.rows = self.rng.sample(list(self.rows), len(self.rows))
        else:
            self.rng.shuffle(self.rows)
        return iter([int(row) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)


@pytest.mark.parametrize(
    "make", [lambda: list(range(8)), lambda: np.arange(8), lambda: torch.arange(8)], ids=["list", "array", "tensor"]
)
@pytest.mark.parametrize("anew", [False, True], ids=["in place", "anew"])
def test_a_sampler_that_shuffles_its_own_rows_gives_the_same_order(make, anew):
    seen = []
    for reads in (False, True):
        rows = make()
        loader = DataLoader(range(8), 2, sampler=Shuffled(rows, anew))
        if reads:
            with same_batches(loader):
                next(iter(loader))
            assert loader.sampler.rows is rows
        seen.append(torch.cat(list(loader)).tolist())
    assert seen[0] == seen[1]


class Buckets:
    """Shuffles its batches, and the rows in them, where they are. It is no Sampler of torch."""

    def __init__(self) -> None:
        self.batches = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

    def __iter__(self):
        random.shuffle(self.batches)
        for rows in self.batches:
            random.shuffle(rows)
            yield rows

    def __len__(self) -> int:
        return len(self.batches)


class Turning(Sampler):
    """Goes around in a queue."""

    def __init__(self) -> None:
        self.queue = deque(range(7))

    def __iter__(self):
        for _ in range(9):
            self.queue.rotate(2)
            yield self.queue[0]

    def __len__(self) -> int:
        return len(self.queue)


class Files(IterableDataset):
    """Opens its files at the first use, in an order that it shuffles where it is."""

    def __init__(self) -> None:
        self.files, self.rows, self.opened = ["3", "1", "2"], None, False

    def __iter__(self):
        if not self.opened:
            self.rows, self.opened = {name: float(name) for name in self.files}, True
        random.shuffle(self.files)
        return (self.rows[name] for name in self.files)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(range(9), batch_sampler=Buckets()),
        lambda: DataLoader(range(9), 3, sampler=Turning()),
        lambda: DataLoader(Files(), 2),
    ],
    ids=["batches", "a queue", "files"],
)
def test_what_shuffles_where_it_is_gives_the_same_order(make):
    seen = []
    for reads in (False, True):
        loader = make()
        if reads:
            random.seed(1)
            with same_batches(loader):
                list(loader)
        random.seed(0)
        seen.append(torch.cat(list(loader)).tolist())
    assert seen[0] == seen[1]


def test_a_sampler_with_an_array_that_is_read_only():
    rows = np.arange(8)
    rows.flags.writeable = False
    loader = DataLoader(range(8), 2, sampler=Shuffled(rows, anew=True))
    with same_batches(loader):
        next(iter(loader))
    assert loader.sampler.rows is rows


@pytest.mark.parametrize(
    "collate",
    [lambda noise: noise.__call__, lambda noise: partial(Noise.__call__, noise), lambda noise: partial(noise)],
    ids=["a method", "a partial with its object", "a partial of its object"],
)
def test_a_generator_behind_a_collator_goes_on_as_before(collate):
    seen = []
    for reads in (False, True):
        loader = DataLoader(range(6), 2, collate_fn=collate(Noise()))
        if reads:
            with same_batches(loader):
                next(iter(loader))
        seen.append(list(loader))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConcatDataset([Noisy(transform=Noise()), Noisy(transform=Noise())]),
        lambda: Noisy(transform=Noise()),
        lambda: Noisy(generators=[random.Random(0)]),
    ],
    ids=["a part of several", "a transform", "in a list"],
)
def test_generators_that_parts_of_a_loader_hold_go_on_as_before(make):
    seen = []
    for reads in (False, True):
        loader = DataLoader(make(), 2)
        if reads:
            with same_batches(loader):
                next(iter(loader))
        seen.append(torch.cat(list(loader)).tolist())
    assert seen[0] == seen[1]


def test_numbers_of_the_system_have_no_state_to_bring_back():
    loader = DataLoader(Noisy(generators=[random.SystemRandom(), random.Random(0)][::-1]), 2, collate_fn=list)
    with same_batches(loader):
        assert next(iter(loader))


def test_whoever_reads_with_workers_that_stay_gets_all_batches():
    loader = DataLoader(range(40), 4, num_workers=1, persistent_workers=True)  # Lightning starts it before the probe
    reader = iter(loader)
    first = next(reader)
    with same_batches(loader):
        batches = iter(loader)
        assert torch.equal(torch.cat([next(batches) for _ in range(3)]), torch.arange(12)), "from the beginning"
    assert torch.equal(torch.cat([first, *reader]), torch.arange(40))
    assert iter(loader) is reader, "its workers stay"


class Augments:
    def __init__(self) -> None:
        self.numbers = np.random.default_rng(0)

    def __call__(self, row: dict) -> dict:
        return row | {"noise": self.numbers.random()}


class Augmented(Dataset):
    """What draws random numbers is under a name of its own."""

    def __init__(self) -> None:
        self.augment = Augments()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return self.augment({"row": index})


class Masks:
    def __init__(self) -> None:
        self.masker = Augments()

    def __call__(self, rows: list) -> dict:
        return self.masker({"rows": rows})


@pytest.mark.parametrize("loader", [DataLoader(Augmented(), 2), DataLoader(range(8), 2, collate_fn=Masks())])
def test_what_augments_rows_draws_the_same_numbers_again_under_any_name(loader):
    with same_batches(loader):
        first = [str(one) for one in loader]
    assert [str(one) for one in loader] == first
