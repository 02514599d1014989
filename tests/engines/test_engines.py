"""The protocol of engines, on one process."""

import pytest
import torch
from models import adamw, lora_bert, tiny_bert
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.engines import ENGINES, Ddp, Engine, Fsdp1, Fsdp2, engine_for, is_first, world_size
from weightlora.engines.fixed import FIXED
from weightlora.errors import ModelError
from weightlora.tensors import forget_whole_, note_whole_, numel, shards


def test_a_plain_model_is_served_by_the_base_class():
    model = lora_bert()
    assert type(engine_for(model, adamw(model))) is Engine
    assert world_size() == 1 and is_first()


@pytest.mark.parametrize("engine", [*ENGINES, Fsdp1])
def test_each_engine_is_complete(engine):
    assert issubclass(engine, Engine) and engine.__doc__ and engine().waiting == []
    model = lora_bert()
    assert engine.holds(model, adamw(model)) == (engine is Engine)
    evidence = torch.tensor([1.0, 2.0])
    assert torch.equal(engine().average(evidence), evidence) and torch.equal(engine().agree(evidence), evidence)


@pytest.mark.parametrize("name", FIXED)
def test_an_engine_from_which_nothing_can_leave_is_refused_by_name(name):
    held = nn.Module()
    held.inner = type(name, (nn.Module,), {})()
    with pytest.raises(ModelError, match=r"this model is held by (FSDP \(version 1\)|DeepSpeed), from which"):
        engine_for(held, adamw(tiny_bert()))


@pytest.mark.parametrize("engine", [Fsdp1, Fsdp2])
def test_growing_is_refused_where_shapes_are_fixed(engine):
    assert not engine.can_grow and Ddp.can_grow
    model = lora_bert()
    with pytest.raises(ModelError, match="expand cannot grow what FSDP has sharded"):
        config = WeightLoraConfig(keep=3, select_steps=4, expand="qr")
        WeightLora(model, adamw(model), config, engine=engine())


def test_fsdp1_switches_losers_off_and_keeps_them_waiting():
    model = lora_bert()
    optimizer = adamw(model)
    engine = Fsdp1()
    config = WeightLoraConfig(selection="random", keep=3, select_steps=0)
    selector = WeightLora(model, optimizer, config, engine=engine)
    assert len(engine.waiting) == 9 and all(adapter.scaling == 0 for adapter in engine.waiting)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not any(id(parameter) in held for adapter in engine.waiting for parameter in adapter.parameters)
    assert selector.state_dict()["waiting"] == [adapter.name for adapter in engine.waiting]


def test_a_part_of_a_parameter_says_how_large_the_whole_is():
    part, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    note_whole_(part, 12, 4)
    assert (numel(part), shards(part), numel(other), shards(other)) == (12, 4, 3, 1)
    forget_whole_(part)
    assert (numel(part), shards(part)) == (3, 1)
