"""FSDP of version 1: adapters that lost are switched off, and leave between two phases."""

from types import SimpleNamespace

import pytest
import torch
from models import lora_bert
from processes import ACCELERATE, RULES, TORCHRUN

from weightlora.engines import Fsdp1

PHASED = {
    "credit": {"keep": 2, "select_steps": 3},
    "gates in rounds": RULES["gates"] | {"keep": 2, "select_steps": 4, "rounds": 2},
    "gradient": {"keep": 2, "selection": "gradient", "probe_batches": 2},
    "chance, at once": {"keep": 2, "select_steps": 0, "selection": "random"},
    "credit, at the last step": {"keep": 2, "select_steps": 6},
}


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.float32), ("no", torch.bfloat16)])
def test_weights_that_train_are_float32_before_mixed_precision_flattens_them(precision, dtype):
    model = lora_bert(layers=1, bias="all").bfloat16()
    before = dict(model.named_parameters())
    Fsdp1().begin_(model, SimpleNamespace(mixed_precision=precision))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    trained = {name: p.dtype for name, p in before.items() if "lora_" in name or "modules_to_save" in name}
    assert len(trained) == 14 and {*trained.values()} == {dtype}
    others = {p.dtype for name, p in before.items() if name not in trained}
    assert others == {torch.bfloat16}, "a bias that trains beside a frozen weight is flattened with it"


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rules"), [(TORCHRUN, list(PHASED)), (ACCELERATE, ["credit"])])
def test_fsdp1_in_two_phases_chooses_and_trains_as_one_process_does(fsdp_and_alone, launcher, rules):
    first, alone = fsdp_and_alone({name: PHASED[name] for name in rules}, "1", launcher)
    for rule in rules:
        assert first[rule]["logged"] == alone[rule]["logged"], "step, learning rate, adapters, their parameters"
    if launcher is TORCHRUN:
        whole, *resumed = first["credit"]["bf16"]
        assert len(whole["losses"]) == 6 and resumed == [whole] * 3, "adapters of 16 bits, at each of the cuts"
        assert "save_only_model=True does not go with FSDP" in first["credit"]["save_only"]
