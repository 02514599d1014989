"""Engines that adapters leave between two phases. A selector that runs without them refuses these engines by name."""

from types import SimpleNamespace

import pytest
from models import adamw, lora_bert
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.engines import Phased
from weightlora.errors import ModelError


@pytest.mark.parametrize("name", ["FullyShardedDataParallel", "DeepSpeedEngine", "DeepSpeedOptimizerWrapper"])
def test_an_engine_from_which_nothing_can_leave_is_refused_by_name(name):
    held = nn.Module()
    held.inner = type(name, (nn.Module,), {})()
    held.model = lora_bert()
    with pytest.raises(
        ModelError,
        match=r"this model is held by (FSDP \(version 1\)|DeepSpeed), from which parameters cannot leave: use",
    ):
        WeightLora(held, adamw(held.model), WeightLoraConfig(select_steps=4))


def test_losers_are_switched_off_and_wait():
    model = lora_bert()
    optimizer = adamw(model)
    engine = Phased()
    config = WeightLoraConfig(selection="random", keep=3, select_steps=0)
    selector = WeightLora(model, optimizer, config, engine=engine)
    assert len(engine.waiting) == 9 and all(adapter.scaling == 0 for adapter in engine.waiting)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not any(id(parameter) in held for adapter in engine.waiting for parameter in adapter.parameters)
    assert selector.state_dict()["waiting"] == [adapter.name for adapter in engine.waiting]


def test_the_engine_holds_the_model_again_after_the_last_step():
    trainer = SimpleNamespace(
        model=1, model_wrapped=None, accelerator=SimpleNamespace(prepare=lambda model: model + 1)
    )
    engine = Phased()
    with engine.serving(trainer.accelerator):
        engine.hold_again_(trainer)
    assert trainer.model == trainer.model_wrapped == 2
    with pytest.raises(NotImplementedError):
        engine.to_plain_(None)
