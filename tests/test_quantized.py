"""Quantized base layers, through bitsandbytes' own kernels (which run on CPU too) and PEFT's own LoRA classes."""

import pytest
import torch
from models import BERT_TARGETS, adamw, batch, tiny_bert, train
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, BitsAndBytesConfig

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import base_model_of, find_adapters

pytest.importorskip("bitsandbytes")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("selection", ["credit", "stoiht"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_layers_select_disconnect_and_expand(bits, selection, tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["classifier", "pooler"],
    )
    base = BertForSequenceClassification.from_pretrained(tmp_path, quantization_config=quantization, device_map="cpu")
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=BERT_TARGETS, task_type="SEQ_CLS"))
    layers = {adapter.name: adapter.layer.base_layer for adapter in find_adapters(model)}
    optimizer = adamw(model)
    config = WeightLoraConfig(keep=3, select_steps=4, selection=selection, expand="qr")
    selector = WeightLora(model, optimizer, config)
    train(model, optimizer, selector, steps=3)
    model(**batch(3)).loss.backward()
    optimizer.step()
    selector.step()
    optimizer.zero_grad()
    assert len(selector.kept) == 3
    for name, layer in layers.items():
        assert (base_model_of(model).get_submodule(name) is layer) == (name not in selector.kept)
    kept = {type(adapter.layer).__name__ for adapter in selector.adapters}
    assert kept == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    before = [adapter.factors[1].detach().clone() for adapter in selector.adapters]
    losses = train(model, optimizer, selector, steps=2, start=4)
    assert all(loss < 1 for loss in losses)
    assert all(not torch.equal(a.factors[1], old) for a, old in zip(selector.adapters, before, strict=True))
