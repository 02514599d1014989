"""Names and tuners of PEFT models, in wrappers and without."""

from models import lora_bert, tiny_bert
from peft import LoraConfig, inject_adapter_in_model

from weightlora.adapters import own_name, tuner_of


def test_names_are_those_before_modules_were_wrapped():
    assert own_name("model._fsdp_wrapped_module.layers.0._checkpoint_wrapped_module.mlp") == "model.layers.0.mlp"


def test_the_tuner_is_pefts_where_there_is_one():
    model = lora_bert()
    assert tuner_of(model) is tuner_of(model.base_model) is model.base_model
    assert tuner_of(inject_adapter_in_model(LoraConfig(target_modules=["query"]), tiny_bert())) is None
