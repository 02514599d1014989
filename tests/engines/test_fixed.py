"""Engines that lay parameters out once and for all are refused by name."""

import pytest
import torch
from models import adamw, lora_bert, tiny_bert
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.engines import engine_for
from weightlora.engines.fixed import FIXED
from weightlora.errors import ModelError


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "DeepSpeedEngine"])
def test_what_cannot_give_up_parameters_is_refused(kind):
    model = lora_bert()
    optimizer = adamw(model)
    engine = type(kind, (torch.nn.Module,), {})()
    engine.inner = model
    with pytest.raises(ValueError, match="from which parameters cannot leave: use WeightLoraTrainer"):
        WeightLora(engine, optimizer, WeightLoraConfig(select_steps=4))


@pytest.mark.parametrize("name", FIXED)
def test_an_engine_from_which_nothing_can_leave_is_refused_by_name(name):
    held = nn.Module()
    held.inner = type(name, (nn.Module,), {})()
    with pytest.raises(ModelError, match=r"this model is held by (FSDP \(version 1\)|DeepSpeed), from which"):
        engine_for(held, adamw(tiny_bert()))
