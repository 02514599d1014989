"""Where the host waits: torch says so by warnings, which are made here without a GPU."""

import warnings

import pytest
import torch
from benchmarks.speed import waits
from benchmarks.speed.waits import SAID, WAITED, find_waits, recorded_waits


@pytest.fixture
def modes(monkeypatch):
    """The modes that torch was set to; it begins with "default"."""
    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    return modes


def test_each_wait_is_recorded_with_its_place_and_the_mode_restored(modes):
    with recorded_waits() as places:
        for _ in range(2):
            warnings.warn_explicit(SAID + " (x.cpp)", UserWarning, "/somewhere/tensors.py", 48)
        warnings.warn("another thing", stacklevel=1)
        assert modes == [0, "warn"]
    assert places == ["tensors.py:48"] * 2 and modes == [0, "warn", 0]


def test_each_part_of_a_step_has_its_own_waits(modes):
    class Told:
        is_cuda = True

    class Waiting:
        done, pieces = False, 1

        def parts(self, batch):
            for number, part in enumerate(WAITED):
                for _ in range(number):
                    warnings.warn_explicit(SAID, UserWarning, f"{part}.py", 1)
                yield
            self.done = True

    variant = Waiting()
    assert find_waits(variant, {"input_ids": Told()}) == {
        "forward": [],
        "backward": ["backward.py:1"],
        "optimizer": ["optimizer.py:1"] * 2,
        "selector": ["selector.py:1"] * 3,
    }
    assert variant.done
    variant.pieces = 2
    assert find_waits(variant, {"input_ids": Told()}) is None, "its parts would be taken for others"


def test_there_are_none_to_find_without_cuda(subject):
    assert waits.find_waits(None, subject.batches[0]) is None
