"""FSDP2 on two processes: the choice of one process, and no shard of a dead parameter."""

import json

import pytest
import torch
from processes import RULES, launch, outcomes


@pytest.mark.slow
def test_fsdp2_chooses_and_trains_as_one_process_does_and_holds_only_survivors(tmp_path, alone):
    rules = {name: settings for name, settings in RULES.items() if "expand" not in settings}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    launch("sharded", 2, str(tmp_path / "rules.json"), str(tmp_path), "no_unused")
    first, second = outcomes(tmp_path, 2)
    for rule in rules:
        assert first[rule]["kept"] == second[rule]["kept"] == alone[rule]["kept"], rule
        losses = torch.tensor([first[rule]["losses"], second[rule]["losses"]]).mean(0)
        torch.testing.assert_close(losses, torch.tensor(alone[rule]["losses"]), atol=1e-4, rtol=0)
        scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
        # Bytes of float32 in the shards of both processes, padding of uneven cuts aside.
        sharded = [first[rule][when] + second[rule][when] for when in ("bytes_before", "bytes_after")]
        gone = alone[rule]["trainable_before"] - alone[rule]["trainable_after"]
        assert sharded[0] - sharded[1] == 4 * gone
        assert first[rule]["refused"].startswith("expand cannot grow what FSDP or DeepSpeed has cut up")
    assert first["a layer of LoRA by itself"].startswith("fully_shard was called on 'base_model.model.bert.encoder")
