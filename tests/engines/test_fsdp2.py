"""FSDP2 on two processes: the choice of one process, and no shard of a dead parameter."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import compare_versions
from processes import RULES, launch, outcomes
from torch import nn

from weightlora.engines import fsdp2
from weightlora.engines.fsdp2 import Fsdp2


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
        assert first[rule]["saved_whole"] == []
        assert first[rule]["unlike_saved"] == second[rule]["unlike_saved"] == 0.0
        assert first[rule]["refused"].startswith("expand cannot grow what FSDP or DeepSpeed has sharded")
    assert first["a layer of LoRA by itself"].startswith("fully_shard was called on 'base_model.model.bert.encoder")


class Group:
    """The lists of a group of torch 2.15: the whole, a part of it, and an order of places."""

    def __init__(self) -> None:
        self.fsdp_params = [
            SimpleNamespace(sharded_param=nn.Parameter(torch.tensor([x]))) for x in (1.0, 2.0, 3.0, 4.0)
        ]
        self._fsdp_params_with_wider_grad_dtype = self.fsdp_params[:2]
        self._reduce_scatter_param_indices: list[int] = []

    def _init_reduce_scatter_param_order(self) -> None:
        self._reduce_scatter_param_indices = list(range(len(self.fsdp_params)))[::-1]


@pytest.mark.parametrize("ran", [False, True])
def test_what_torch_derives_from_its_list_of_shards_follows_it(ran, monkeypatch):
    """Before the first forward pass, torch has no order yet, and what it is made of is not there."""
    group = Group()
    if ran:
        group._init_reduce_scatter_param_order()
    model = nn.Linear(1, 1)
    first, _, third, _ = group.fsdp_params
    model.weight, model.bias = first.sharded_param, third.sharded_param
    monkeypatch.setattr(fsdp2, "_shard_groups", lambda model: iter([group]))
    Fsdp2().rewire_(model)
    assert group.fsdp_params == [first, third] and group._fsdp_params_with_wider_grad_dtype == [first]
    assert group._reduce_scatter_param_indices == ([1, 0] if ran else [])


@pytest.mark.slow
@pytest.mark.skipif(compare_versions("accelerate", "<", "1.15"), reason="older versions do not load what they save")
def test_the_trainer_under_fsdp2_chooses_trains_saves_and_resumes_as_one_process_does(fsdp_and_alone):
    """Accelerate wraps each layer, and the model is not given back: there is one phase."""
    rules = {"credit": {"keep": 2, "select_steps": 3}, "gradient": {"keep": 2, "probe_batches": 2}}
    first, alone = fsdp_and_alone(rules, "2")
    plain = first["credit"]["plain"]
    assert "call weightlora.restore(model, checkpoint_dir) before" in plain["refused"]
    assert plain["kept"] == alone["credit"]["kept"]
    losses = (torch.tensor(found["losses"]) for found in (plain, alone["credit"]))
    torch.testing.assert_close(*losses, atol=1e-4, rtol=0)
