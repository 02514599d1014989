"""What PEFT could not save is refused before a run, and nothing else is."""

import pytest
from models import tiny_bert, tiny_llama, tiny_wav2vec2
from peft import LoraConfig, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.errors import ModelError
from weightlora.saving import check_saves


def test_an_adapter_beside_which_peft_saves_embeddings_that_are_not_there(tmp_path):
    model = get_peft_model(tiny_wav2vec2(), LoraConfig(target_modules="all-linear"))
    with pytest.raises(ModelError, match=r"adapter 'lm_head' could not be saved: .* but Wav2Vec2ForCTC has none"):
        find_adapters(model)
    with pytest.raises(NotImplementedError):
        model.save_pretrained(tmp_path)


def test_other_modules_and_models_are_saved():
    check_saves(tiny_wav2vec2(), ["wav2vec2.encoder.layers.0.attention.k_proj"])
    check_saves(tiny_llama(), ["lm_head", "model.embed_tokens"])
    check_saves(tiny_bert().bert.pooler, ["lm_head"])  # not of Transformers
