"""The extra `export`: every profile."""

from pathlib import Path

from peft import PeftModel
from tiny import llama, save_adapter, save_inputs, weightlora
from transformers import AutoModelForCausalLM

save_inputs()
save_adapter()
for profile in ("portable", "compact", "merged", "mlx", "gguf"):
    weightlora("export", "adapter", profile, "--profile", profile, "--base", "base")
for profile in ("portable", "compact"):
    PeftModel.from_pretrained(llama(), profile)
AutoModelForCausalLM.from_pretrained("merged")
assert Path("mlx/adapters.safetensors").is_file()
assert Path("gguf/adapter.gguf").read_bytes().startswith(b"GGUF")
