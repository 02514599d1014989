"""torchtune 0.6.1 adapts what the snippet for it says: the types of the choice, in all layers."""

import json
import os
import subprocess
import sys

from consumers.settings.sources import installed_apart
from selections import chosen, edited, lora_llama

CODE = """
import json, sys
import yaml
from torchtune.models.llama3 import lora_llama3
from torchtune.models.convert_weights import _FROM_HF
from torchtune.modules.peft import DoRALinear, LoRALinear

sizes = dict(vocab_size=50, num_layers=3, num_heads=2, num_kv_heads=1, embed_dim=16, max_seq_len=16)
pairs = [(hf, ours) for hf, ours in _FROM_HF.items() if ours]
theirs = {ours.replace("{}", str(i)): hf.replace("{}", str(i)) for i in range(3) for hf, ours in pairs}
for block in json.load(sys.stdin):
    model = lora_llama3(**yaml.safe_load(block)["model"], **sizes, intermediate_dim=24)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            found[theirs[f"{name}.weight"][:-7]] = [module.rank, module.alpha / module.rank]
        elif isinstance(module, DoRALinear):
            found[theirs[f"{name}.weight"][:-7]] = [module.lora_a.out_features, module.scaling, module.dropout.p]
    print(json.dumps(found))
"""

CHOICES = [
    (["model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.o_proj"], ["q_proj", "o_proj"]),
    (
        ["model.layers.1.self_attn.k_proj", "model.layers.2.mlp.up_proj"],
        ["k_proj", "gate_proj", "up_proj", "down_proj"],
    ),
    (["model.layers.1.self_attn.v_proj", "lm_head"], ["v_proj", "lm_head"]),
]
"""Chosen modules, and the types that torchtune then adapts."""


def run_torchtune(blocks: list[str]) -> list[dict[str, list[float]]]:
    """Rank and scaling of each adapter of torchtune's Llama for each block, by the names of Transformers.

    torchtune wants an old torchao, which PEFT refuses: it runs in a process of its own.
    """
    paths = [str(installed_apart("torchtune-0.6.1")), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", CODE]
    run = subprocess.run(command, input=json.dumps(blocks), env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def test_torchtune_adapts_the_nearest_superset():
    everything = chosen(lora_llama(3, target_modules=r".*_proj|lm_head", use_rslora=True))
    selections = [edited(everything, kept) for kept, _ in CHOICES]
    blocks = [selection.to("torchtune") for selection in selections]
    for (kept, types), block, found in zip(CHOICES, blocks, run_torchtune(blocks), strict=True):
        superset = {module.name for module in everything.modules if module.name.rpartition(".")[2] in types}
        assert set(found) == superset > set(kept)
        assert f"nearest superset adapts at least {len(superset) - len(kept)} more." in block
        assert set(map(tuple, found.values())) == {(4, 4.0)}  # as rsLoRA: 8 / sqrt(4)


def test_dora_with_dropout():
    kept, types = CHOICES[0]
    selection = edited(chosen(lora_llama(3, use_dora=True, lora_dropout=0.1)), kept)
    assert "  use_dora: True\n  lora_dropout: 0.1\n" in selection.to("torchtune")
    (found,) = run_torchtune([selection.to("torchtune")])
    assert {name.rpartition(".")[2] for name in found} == {*types}
    assert set(map(tuple, found.values())) == {(4, 2.0, 0.1)}
