"""FSDP of version 1: adapters that lost are switched off, and leave between two phases."""

import pytest
from processes import ACCELERATE, RULES, TORCHRUN

PHASED = {
    "credit": {"keep": 2, "select_steps": 3},
    "gates in rounds": RULES["gates"] | {"keep": 2, "select_steps": 4, "rounds": 2},
    "gradient": {"keep": 2, "selection": "gradient", "probe_batches": 2},
    "chance, at once": {"keep": 2, "select_steps": 0, "selection": "random"},
    "credit, at the last step": {"keep": 2, "select_steps": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rules"), [(TORCHRUN, list(PHASED)), (ACCELERATE, ["credit"])])
def test_fsdp1_in_two_phases_chooses_and_trains_as_one_process_does(fsdp_and_alone, launcher, rules):
    first, alone = fsdp_and_alone({name: PHASED[name] for name in rules}, "1", launcher)
    for rule in rules:
        assert first[rule]["logged"] == alone[rule]["logged"], "step, learning rate, adapters, their parameters"
    if launcher is TORCHRUN:
        assert "save_only_model=True does not go with FSDP" in first["credit"]["save_only"]
