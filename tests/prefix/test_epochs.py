"""What a prefix cache counts in each epoch."""

import pytest

from weightlora.prefix.epochs import Epochs


def keys(*names: str) -> list[bytes]:
    return [name.encode() for name in names]


def test_an_epoch_is_over_at_its_size():
    epochs = Epochs(3)
    epochs.count(keys("a", "b"))
    assert not epochs.over
    epochs.count(keys("c"))
    assert epochs.over
    epochs.end()
    assert not epochs.over


def test_without_a_size_only_the_training_ends_it():
    epochs = Epochs(None)
    epochs.count(keys(*"abcdef"))
    assert not epochs.over


def test_a_pass_begins_with_rows_that_were_all_met():
    epochs = Epochs(None)
    begins = [epochs.count(keys(*batch)) for batch in ("ab", "cd", "ca", "bx", "db", "ac")]
    assert begins == [False, False, True, False, False, True]


@pytest.mark.parametrize(("read", "told"), [(0, True), (1, True), (2, False), (4, False)])
def test_an_epoch_whose_rows_are_mostly_new_is_told_from_the_second_one_on(read, told):
    epochs = Epochs(None)
    epochs.count(keys(*"abcd"))
    assert epochs.end() is None
    epochs.count(keys(*"efgh"))
    epochs.count_read(read)
    why = epochs.end()
    assert (why is not None and f"{read} of 4 rows of an epoch came again" in why) == told


def test_a_longer_epoch_than_the_last_one_is_not_told():
    """The first one was begun in the middle, or the data grow."""
    epochs = Epochs(None)
    epochs.count(keys("a"))
    epochs.end()
    epochs.count(keys("b", "c"))
    assert epochs.end() is None


def test_an_epoch_without_rows_is_not_told():
    epochs = Epochs(None)
    assert epochs.end() is None and epochs.end() is None
