"""Blocks that are replaced while one forward pass runs, and are themselves again after it."""

import pytest
import torch
from torch import nn

from weightlora.prefix.places import BARE, entering, passed_over, without_dropout


class Block(nn.Module):
    kind = "sliding"

    def __init__(self, number: int, others: int = BARE) -> None:
        super().__init__()
        self.number, self.others = number, others

    def forward(self, hidden_states, mask=None):
        out = hidden_states * 10 + self.number
        return out if self.others == BARE else (out, *[None] * self.others)


def run(blocks: nn.ModuleList, named: bool = False) -> torch.Tensor:
    hidden = torch.zeros(1)
    for block in blocks:
        assert block.kind == "sliding" and block.number >= 0
        out = block(hidden_states=hidden, mask=1) if named else block(hidden, mask=1)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden


def make(others: int = BARE) -> nn.ModuleList:
    return nn.ModuleList(Block(number, others) for number in range(4))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("others", [BARE, 0, 2])
def test_the_lower_blocks_are_passed_over(others, named):
    blocks = make(others)
    real, met = list(blocks), []

    def swap(hidden):
        met.append(hidden.item())
        return torch.full((1,), 7.0)

    with entering(blocks, 2, swap) as form:
        assert run(blocks, named).item() == 723
    assert met == [1.0] and form == [others] and list(blocks) == real
    with passed_over(blocks, 2, form[0], swap):
        assert run(blocks, named).item() == 723
    assert met == [1.0, 0.0] and list(blocks) == real and not blocks[1]._forward_hooks
    assert run(blocks).item() == 123


def test_a_block_that_returns_more_gives_no_form():
    blocks = make()
    blocks[1].forward = lambda hidden, mask: (hidden, hidden)
    with entering(blocks, 2, lambda hidden: hidden) as form:
        run(blocks)
    assert form == []


def test_an_error_leaves_the_blocks_as_they_were():
    blocks = make()
    real = list(blocks)
    for way in (entering(blocks, 2, lambda _: 1 / 0), passed_over(blocks, 2, BARE, lambda _: 1 / 0)):
        with pytest.raises(ZeroDivisionError), way:
            run(blocks)
        assert list(blocks) == real


def test_evaluation_mode_for_a_part_only_until_a_block_is_called():
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.Dropout()), nn.Dropout(), nn.Identity())
    model[0][1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), without_dropout([*model[0].modules()], model[2]):
        assert [module.training for module in model.modules()] == [True, False, False, False, True, True]
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before == [True, True, True, False, True, True]
    with without_dropout([*model[0].modules()], model[2]):
        model[2](torch.zeros(1))
        assert [module.training for module in model.modules()] == before
    assert not model[2]._forward_pre_hooks
