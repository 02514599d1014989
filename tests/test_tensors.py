"""Tensors of which a process holds a part."""

import torch
from torch import nn

from weightlora.tensors import forget_whole_, note_whole_, numel, shards


def test_a_part_of_a_parameter_says_how_large_the_whole_is():
    part, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    note_whole_(part, 12, 4)
    assert (numel(part), shards(part), numel(other), shards(other)) == (12, 4, 3, 1)
    forget_whole_(part)
    assert (numel(part), shards(part)) == (3, 1)
