"""The extra `export`: every profile."""

from pathlib import Path

from peft import PeftModel
from tiny import command, llama, save_adapter, save_inputs, weightlora
from transformers import AutoModelForCausalLM

save_inputs()
save_adapter()
command("export", "adapter", "gguf", "--profile", "gguf", "--base", "base")
for profile in ("portable", "compact", "merged", "mlx"):
    weightlora("export", "adapter", profile, "--profile", profile, "--base", "base")
for profile in ("portable", "compact"):
    PeftModel.from_pretrained(llama(), profile)
AutoModelForCausalLM.from_pretrained("merged")
assert Path("mlx/adapters.safetensors").is_file()
assert Path("gguf/adapter.gguf").read_bytes().startswith(b"GGUF")
