"""Both directions of the layouts, for experts and for groups."""

import pytest
import torch

from weightlora.adapters.blocks import from_blocks, to_blocks


@pytest.mark.parametrize(
    ("which", "shape", "blocks", "experts", "expected"),
    [
        (0, (4, 5), 1, False, (1, 4, 5)),
        (1, (6, 4), 1, False, (1, 6, 4)),
        (0, (4, 2, 3), 2, False, (2, 2, 6)),
        (1, (6, 2, 1), 2, False, (2, 3, 2)),
        (0, (6, 5), 3, True, (3, 2, 5)),
        (1, (7, 6), 3, True, (3, 7, 2)),
    ],
)
def test_there_and_back(which, shape, blocks, experts, expected):
    tensor = torch.randn(shape)
    found = to_blocks(which, tensor, blocks, experts)
    assert found.shape == expected
    assert torch.equal(from_blocks(which, found, shape, experts), tensor)


def test_experts_are_last_in_b():
    b = torch.arange(6.0)[None]  # one output; ranks of experts: r0 e0, r0 e1, r0 e2, r1 e0, ...
    assert to_blocks(1, b, 3, True)[:, 0].tolist() == [[0, 3], [1, 4], [2, 5]]
