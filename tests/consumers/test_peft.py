"""PEFT and Transformers without this package read the exports."""

import json

import pytest
import torch
from exports import CASES, logits, saved
from processes import fork_server

from weightlora.export import export_adapter

LOAD = """
import json, sys
sys.modules["weightlora"] = None
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
found = []
for directory, base in json.loads(sys.stdin.read()):
    model = AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(directory)
    with torch.no_grad():
        found.append(model.eval()(input_ids=torch.arange(3, 15)[None]).logits.tolist())
print(json.dumps(found))
"""
NAMES = ["rsLoRA with gates and ranks", "a few modules", "experts"]


@pytest.mark.parametrize("profile", ["portable", "compact"])
def test_load_adapter_of_transformers_gives_the_same_logits(profile, tmp_path):
    for name in NAMES:
        export_adapter(saved(name), tmp_path / name, profile, check="tensors")
    places = [(str(tmp_path / name), str(saved(name).parent / "base")) for name in NAMES]
    done = fork_server().run("-c", LOAD, input=json.dumps(places))
    assert done.returncode == 0, done.stderr
    for name, found in zip(NAMES, json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected = logits(saved(name), CASES[name].base())
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-6)
