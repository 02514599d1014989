"""mlx-lm loads the export with `load_adapters`, and computes what PEFT does."""

import json

import numpy as np
import pytest
import torch
from exports import CASES, EXPERTS_AND_HEADS, logits, saved
from models import tiny_gemma3
from peft import LoraConfig, get_peft_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from weightlora.export import export_adapter

mx = pytest.importorskip("mlx.core", reason="mlx is not installed: run `make consumers`")
utils = pytest.importorskip("mlx_lm.utils", reason="mlx-lm is not installed: run `make consumers`")
NAMES = [name for name in CASES if name not in EXPERTS_AND_HEADS]


@pytest.mark.parametrize("name", NAMES)
def test_mlx_lm_computes_what_peft_does(name, tmp_path):
    from mlx_lm.tuner.utils import load_adapters

    export_adapter(saved(name), tmp_path / "out", "mlx")
    model, _ = utils.load_model(saved(name).parent / "base")
    ids = mx.array(np.arange(3, 15)[None])
    before = torch.from_numpy(np.array(model(ids)))
    torch.testing.assert_close(before, logits(None, CASES[name].base()), rtol=0, atol=1e-6)
    after = torch.from_numpy(np.array(load_adapters(model, str(tmp_path / "out"))(ids)))
    torch.testing.assert_close(after, logits(saved(name), CASES[name].base()), rtol=0, atol=2e-6)
    assert float((after - before).abs().max()) > 0.01


def exported(base, targets, place):
    """The base with random adapters on its targets. `base` has it, and `out` the exported adapters."""
    base.save_pretrained(place / "base")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.peft_config["default"].base_model_name_or_path = str(place / "base")
    model.save_pretrained(place / "adapter")
    export_adapter(place / "adapter", place / "out", "mlx")
    return model


def test_mlx_lm_reads_a_model_with_images(tmp_path):
    """It keeps the language model alone, and calls its modules otherwise than Transformers does."""
    from mlx_lm.tuner.utils import load_adapters

    base = tiny_gemma3()
    model = exported(base, r".*language_model.*\.(q_proj|up_proj)", tmp_path)
    theirs, _ = utils.load_model(tmp_path / "base")
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        wanted = model(input_ids=ids, token_type_ids=torch.zeros_like(ids)).logits
    before = torch.from_numpy(np.array(theirs(mx.array(ids.numpy()))))
    after = torch.from_numpy(np.array(load_adapters(theirs, str(tmp_path / "out"))(mx.array(ids.numpy()))))
    torch.testing.assert_close(after, wanted, rtol=0, atol=1e-4)
    assert float((after - before).abs().max()) > 0.01


def test_mlx_lm_reads_a_gpt_neox(tmp_path):
    """It calls the blocks and the head otherwise."""
    from mlx_lm.tuner.utils import load_adapters

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=50, max_position_embeddings=32, hidden_act="gelu_new", **sizes)
    ).eval()
    model = exported(base, ["query_key_value", "dense_h_to_4h", "lm_head"], tmp_path)
    config = json.loads((tmp_path / "base/config.json").read_text())  # as the configs of Pythia have it
    (tmp_path / "base/config.json").write_text(json.dumps(config | {"rotary_emb_base": 10_000, "rotary_pct": 0.25}))
    theirs, _ = utils.load_model(tmp_path / "base")
    ids = torch.arange(3, 15)[None]
    before = torch.from_numpy(np.array(theirs(mx.array(ids.numpy()))))
    after = torch.from_numpy(np.array(load_adapters(theirs, str(tmp_path / "out"))(mx.array(ids.numpy()))))
    with torch.no_grad():
        change = model(input_ids=ids).logits - before
        with model.disable_adapter():
            torch.testing.assert_close(before, model(input_ids=ids).logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(after - before, change, rtol=0, atol=1e-4)
    assert float(change.abs().max()) > 0.01
