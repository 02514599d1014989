"""From one DeepSpeed engine to the next, the run goes on as if nothing had happened. On a stand-in for DeepSpeed."""

import pytest
import torch
from deepspeed_stand_in import DeepSpeedEngine, install
from models import batch, lora_bert

from weightlora.adapters import find_adapters
from weightlora.adapters.surgery import disconnect_
from weightlora.engines import carry
from weightlora.errors import ModelError, StateError


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    install(monkeypatch)


def trained(engine, steps):
    losses = []
    for step in steps:
        loss = engine.module(**batch(step)).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9)])
def test_an_engine_with_fewer_parameters_goes_on_as_the_old_one_would(tmp_path, kind):
    old = DeepSpeedEngine(lora_bert(layers=1), kind)
    trained(old, range(3))
    losers = find_adapters(old.module)[2:]
    leaving = {id(parameter) for adapter in losers for parameter in adapter.parameters}
    assert carry.write_carried(old, leaving, tmp_path)
    for adapter in losers:
        adapter.set_scaling_(0.0)

    model = lora_bert(layers=1)
    disconnect_(model, find_adapters(model)[2:])
    new = DeepSpeedEngine(model, kind)
    assert carry.put_back_(new, tmp_path) == (str(tmp_path / "global_step3"), {})
    assert new.global_steps == 3 and new.optimizer.param_groups[0]["lr"] == old.optimizer.param_groups[0]["lr"]
    for (name, ours), theirs in zip(
        carry.trained(model), (p for p in old.trained if id(p) not in leaving), strict=True
    ):
        assert torch.equal(ours, theirs), name
        states = (one.optimizer.state[one.optimizer.copies[p]] for one, p in ((new, ours), (old, theirs)))
        for mine, other in zip(*(state.values() for state in states), strict=True):
            assert torch.equal(mine, other), name
    assert trained(new, range(3, 6)) == pytest.approx(trained(old, range(3, 6)), abs=1e-6)


def test_master_weights_keep_the_bits_that_bf16_has_lost(tmp_path):
    old = DeepSpeedEngine(lora_bert(layers=1).bfloat16())
    trained(old, range(2))
    carry.write_carried(old, set(), tmp_path)
    new = DeepSpeedEngine(lora_bert(layers=1).bfloat16())
    carry.put_back_(new, tmp_path)
    pairs = list(zip(new.trained, old.trained, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    masters = [(new.optimizer.copies[ours], old.optimizer.copies[theirs]) for ours, theirs in pairs]
    assert all(torch.equal(ours, theirs) for ours, theirs in masters)
    assert any(not torch.equal(master, ours.float()) for (master, _), (ours, _) in zip(masters, pairs, strict=True))


def test_a_checkpoint_of_deepspeeds_own_is_left_to_it_and_an_earlier_runs_file_is_removed(tmp_path):
    engine = DeepSpeedEngine(lora_bert(layers=1))
    assert carry.put_back_(engine, tmp_path) is None
    trained(engine, range(1))
    carry.write_carried(engine, set(), tmp_path)
    carry.drop_carried(tmp_path)
    assert carry.put_back_(engine, tmp_path) is None


def test_a_damaged_file_and_one_of_other_parameters_are_refused_before_anything_is_changed(tmp_path):
    engine = DeepSpeedEngine(lora_bert(layers=1))
    trained(engine, range(1))
    carry.write_carried(engine, {id(engine.trained[0])}, tmp_path)
    before = [parameter.detach().clone() for parameter in engine.trained]
    with pytest.raises(StateError, match=r"do not train the same parameters \('base_model\..*lora_A.*build the model"):
        carry.put_back_(engine, tmp_path)
    path = next(tmp_path.glob("*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match=r"is damaged .*: resume from another checkpoint"):
        carry.put_back_(engine, tmp_path)
    assert all(torch.equal(old, new) for old, new in zip(before, engine.trained, strict=True))


def test_an_optimizer_whose_state_deepspeed_cannot_hand_out_is_refused_by_the_name_of_the_call(tmp_path):
    engine = DeepSpeedEngine(lora_bert(layers=1), torch.optim.Adafactor)
    trained(engine, range(1))
    with pytest.raises(ModelError, match=r"safe_get_full_optimizer_state gives no 'row_var' of the optimizer.*AdamW"):
        carry.moments_of(engine.optimizer)
