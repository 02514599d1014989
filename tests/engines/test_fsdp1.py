"""FSDP of version 1: adapters that lost are switched off, and leave between two phases."""

import json

import pytest
import torch
from models import batch, tiny_bert
from processes import ACCELERATE, RULES, TORCHRUN, launch, outcomes

from weightlora.adapters import find_adapters

PHASED = {
    "credit": {"keep": 2, "select_steps": 3},
    "gates in rounds": RULES["gates"] | {"keep": 2, "select_steps": 4, "rounds": 2},
    "gradient": {"keep": 2, "selection": "gradient", "probe_batches": 2},
    "chance, at once": {"keep": 2, "select_steps": 0, "selection": "random"},
    "credit, at the last step": {"keep": 2, "select_steps": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rules"), [(TORCHRUN, list(PHASED)), (ACCELERATE, ["credit"])])
def test_fsdp1_in_two_phases_chooses_and_trains_as_one_process_does(tmp_path, launcher, rules):
    from peft import PeftModel
    from workers import phased

    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    (tmp_path / "rules.json").write_text(json.dumps({name: PHASED[name] for name in rules}))
    phased(str(tmp_path / "rules.json"), str(tmp_path / "alone"))
    alone = outcomes(tmp_path / "alone", 1)[0]
    launch("phased", 2, str(tmp_path / "rules.json"), str(tmp_path / "together"), by=launcher)
    first, second = outcomes(tmp_path / "together", 2)
    for rule in rules:
        one = alone[rule]
        assert first[rule]["kept"] == second[rule]["kept"] == one["kept"] and len(one["kept"]) == 2, rule
        assert first[rule]["losses"] == second[rule]["losses"]
        torch.testing.assert_close(torch.tensor(first[rule]["losses"]), torch.tensor(one["losses"]), atol=1e-4, rtol=0)
        scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
        assert first[rule]["logged"] == one["logged"], "step, learning rate, adapters, their parameters"
        # Bytes that the two hold together, and what one holds alone; after the last step there is no optimizer.
        for what in ("trainable", "moments") if "last step" not in rule else ("trainable",):
            assert first[rule][what] + second[rule][what] == one[what]
        outputs = []
        for name in ("alone", "together"):
            plain = PeftModel.from_pretrained(tiny_bert(layers=1), tmp_path / name / rule / "final").eval()
            outputs.append(plain(**batch(0)).logits)
            assert {adapter.name for adapter in find_adapters(plain, check=False)} == set(one["kept"])
        torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
    for resumed in ("before", "at", "after") if launcher is TORCHRUN else ():  # before the choice, at it, after it
        assert first["credit"][resumed]["kept"] == alone["credit"]["kept"]
        losses = torch.tensor(first["credit"][resumed]["losses"])
        torch.testing.assert_close(losses, torch.tensor(alone["credit"]["losses"]), atol=1e-4, rtol=0)
    if launcher is TORCHRUN:
        assert "cannot grow what FSDP or DeepSpeed has sharded" in first["credit"]["expand"]
        assert "save_only_model=True does not go with FSDP" in first["credit"]["save_only"]
