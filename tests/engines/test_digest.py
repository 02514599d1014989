"""Digests tell every change of a trainable parameter, and nothing else."""

import pytest
import torch
from models import lora_bert
from torch import nn

from weightlora.engines.digest import digest, digests_of


def test_names_in_their_order_have_one_digest_that_an_int64_holds():
    assert digest(["a", "b"]) == digest(iter(["a", "b"])) != digest(["b", "a"])
    assert torch.tensor(digest(["a"])).dtype == torch.int64


def test_two_equal_models_have_equal_digests_and_wrappers_change_nothing():
    one, other = lora_bert(), lora_bert()
    assert digests_of(one) == digests_of(other) == digests_of(torch.compile(other))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_last_bit_of_one_number_changes_the_digest_of_the_bits_alone(dtype):
    model = nn.Linear(30, 20).to(dtype)
    structure, part, bits = digests_of(model)
    with torch.no_grad():
        model.weight[3, 4] = torch.nextafter(model.weight[3, 4].float(), torch.tensor(9.0)).to(dtype)
        if dtype in (torch.bfloat16, torch.float16):
            model.weight.view(torch.int16)[3, 4] += 1
    assert digests_of(model)[:2] == [structure, part] and digests_of(model)[2] != bits


def test_frozen_parameters_do_not_count_and_missing_ones_do():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    before = digests_of(model)
    nn.init.zeros_(model[0].weight)
    assert digests_of(model) == before
    model[0].weight.requires_grad_()
    assert digests_of(model)[0] != before[0]
    assert len(digests_of(model.requires_grad_(False))) == 3, "nothing is trainable"
