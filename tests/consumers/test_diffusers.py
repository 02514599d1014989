"""diffusers loads a portable export of an adapter on a tiny UNet, and computes what PEFT does.

Its rule (`diffusers/utils/peft_utils.py`, 0.40): ranks from the shapes, and alpha equal to the rank where the file has
none, so scalings of 1 are what it reads right.
"""

import copy

import pytest
import torch
from architectures import Denoiser, noise
from exports import randomize_
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from weightlora.export import export_adapter

pytest.importorskip("diffusers")
SETTINGS = {"r": 4, "lora_alpha": 6, "rank_pattern": {"to_v": 2}, "alpha_pattern": {"to_q": -9.5}}


def run(unet, inputs):
    with torch.no_grad():
        return unet.eval()(**inputs).sample


@pytest.mark.parametrize("profile", ["portable", "compact"])
def test_diffusers_computes_what_peft_does(profile, tmp_path):
    torch.manual_seed(0)
    unet = Denoiser().unet
    inputs = noise()
    before, other = run(unet, inputs), copy.deepcopy(unet)
    adapted = get_peft_model(unet, LoraConfig(target_modules=["to_q", "to_v", "conv1"], **SETTINGS))
    randomize_(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = run(adapted, inputs)
    export_adapter(tmp_path / "adapter", tmp_path / "out", profile, check="tensors")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    other.load_lora_adapter({key.removeprefix("base_model.model."): t for key, t in tensors.items()}, prefix=None)
    torch.testing.assert_close(run(other, inputs), expected, rtol=0, atol=1e-5)
    assert float((expected - before).abs().max()) > 0.01
