"""What one process chooses, for the engines to be compared with."""

import json

import pytest
import torch
from models import batch, tiny_bert
from processes import RULES, TORCHRUN, launch, outcomes

from weightlora.adapters import find_adapters


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """What one process chooses and loses under each rule."""
    from workers import loop

    directory = tmp_path_factory.mktemp("alone")
    (directory / "rules.json").write_text(json.dumps(RULES))
    loop(str(directory / "rules.json"), str(directory), "no_unused")
    return outcomes(directory, 1)[0]


@pytest.fixture
def fsdp_and_alone(tmp_path):
    """Trains by `workers.phased` on two processes and on one, and checks that both choose, lose and save the same."""
    from peft import PeftModel
    from workers import phased

    def compare(rules: dict[str, dict], version: str, by=TORCHRUN) -> tuple[dict, dict]:
        """What the first of two processes and the one alone have found."""
        (tmp_path / "rules.json").write_text(json.dumps(rules))
        for name in ("alone", "together"):
            (tmp_path / name).mkdir()
        phased(str(tmp_path / "rules.json"), str(tmp_path / "alone"))
        alone = outcomes(tmp_path / "alone", 1)[0]
        launch("phased", 2, str(tmp_path / "rules.json"), str(tmp_path / "together"), version, by=by)
        first, second = outcomes(tmp_path / "together", 2)
        for rule in rules:
            one = alone[rule]
            assert first[rule]["kept"] == second[rule]["kept"] == one["kept"] and len(one["kept"]) == 2, rule
            assert first[rule]["losses"] == second[rule]["losses"]
            agree(first[rule]["losses"], one["losses"])
            scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
            torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
            # Bytes that the two hold together, and what one holds alone; after the last step there is no optimizer.
            for what in ("trainable", "moments") if "last step" not in rule else ("trainable",):
                assert first[rule][what] + second[rule][what] == one[what]
            outputs = []
            for name in ("alone", "together"):
                plain = PeftModel.from_pretrained(tiny_bert(layers=1), tmp_path / name / rule / "final").eval()
                outputs.append(plain(**batch(0)).logits)
                assert {adapter.name for adapter in find_adapters(plain, check=False)} == set(one["kept"])
            torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
        for resumed in ("before", "at", "after") if by is TORCHRUN else ():  # before the choice, at it, after it
            assert first["credit"][resumed]["kept"] == alone["credit"]["kept"]
            agree(first["credit"][resumed]["losses"], alone["credit"]["losses"])
        if by is TORCHRUN:
            assert "cannot grow what FSDP or DeepSpeed has sharded" in first["credit"]["expand"]
            assert "was written with FSDP, and this training runs without it" in first["credit"]["without FSDP"]
        return first, alone

    return compare


def agree(losses: list[float], others: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(others), atol=1e-4, rtol=0)
