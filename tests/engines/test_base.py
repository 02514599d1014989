"""The protocol of engines, on one process."""

import pytest
import torch
from models import adamw, batch, lora_bert, train

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.engines import ENGINES, Ddp, DeepSpeed, Engine, Fsdp1, Fsdp2, engine_for, is_first
from weightlora.engines.processes import world_size
from weightlora.errors import ModelError


def test_a_plain_model_is_served_as_under_ddp_which_may_wrap_it_later():
    model = lora_bert()
    assert type(engine_for(model, adamw(model))) is Ddp
    assert world_size() == 1 and is_first()


@pytest.mark.parametrize("engine", [*ENGINES, Fsdp1, DeepSpeed])
def test_each_engine_is_complete(engine):
    assert issubclass(engine, Engine) and engine.__doc__ and engine().waiting == []
    model = lora_bert()
    if engine in ENGINES:
        assert engine.holds(model) == (engine is not Fsdp2)
    evidence = torch.tensor([1.0, 2.0])
    assert torch.equal(engine().average(evidence), evidence) and torch.equal(engine().agree(evidence), evidence)


@pytest.mark.parametrize("engine", [Fsdp1, Fsdp2])
def test_growing_is_refused_where_shapes_are_fixed(engine):
    assert not engine.can_grow and Ddp.can_grow
    model = lora_bert()
    with pytest.raises(ModelError, match="expand cannot grow what FSDP or DeepSpeed has sharded"):
        config = WeightLoraConfig(keep=3, select_steps=4, expand="qr")
        WeightLora(model, adamw(model), config, engine=engine())


def test_merged_adapters_do_not_leave_and_do_once_they_are_unmerged():
    """PEFT would leave what they added in the weights of the base, for good."""
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=20))
    train(model, optimizer, selector, steps=3)
    model.eval()
    before = model(**batch(0)).logits
    model.merge_adapter()
    with pytest.raises(ModelError, match=r"^the adapter on 'base.*' is merged .*: call model\.unmerge_adapter\(\)"):
        selector.finish()
    assert len(find_adapters(model, check=False)) == 12
    model.unmerge_adapter()
    torch.testing.assert_close(model(**batch(0)).logits, before)
    selector.finish()
    assert len(find_adapters(model)) == 3
