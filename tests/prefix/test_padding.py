"""What is known of padding before a batch with it is read."""

import pytest
import torch

from weightlora.errors import TrainingError
from weightlora.prefix.padding import Padding
from weightlora.prefix.rows import Rows

FULL = Rows([b"a", b"b"], [3, 3], 3, None)
PADDED = Rows([b"a", b"b"], [3, 2], 3, None)


def backward(hidden: torch.Tensor, reached: bool) -> None:
    (hidden if reached else hidden[:, :2]).sum().backward()


def test_a_batch_with_padding_is_permitted_once_one_was_watched():
    padding = Padding(pytest.fail)
    assert padding.permits(FULL) and not padding.permits(PADDED)
    padding.watch(torch.ones(2, 3, 4), FULL)
    with torch.no_grad():
        padding.watch(torch.ones(2, 3, 4), PADDED)
    padding.watch(torch.ones(2, 4), PADDED)
    assert not padding.permits(PADDED)
    hidden = padding.watch(torch.ones(2, 3, 4), PADDED)
    assert padding.permits(PADDED)
    backward(hidden, reached=False)


def test_a_loss_on_padding_stops_and_ends_the_training_if_padding_was_read():
    said = []
    padding = Padding(said.append)
    padding.count(FULL)
    hidden = padding.watch(torch.ones(2, 3, 4), PADDED)
    backward(hidden, reached=True)
    assert said == [
        "the loss depends on hidden states of padding, which are not kept: mask padding in the labels (-100) and in "
        "pooling"
    ]
    padding.count(PADDED)
    with pytest.raises(TrainingError, match="and train again: batches with padding were read"):
        backward(padding.watch(torch.ones(2, 3, 4), PADDED), reached=True)
