"""The extra `compare`: its command, with a table and a picture."""

import json
from pathlib import Path

from tiny import TRAIN, command, save_inputs

save_inputs()
asked = ["--methods", "lora,weightlora", "--seeds", "1", "--learning_rates", "1e-3", "--output_dir", "out"]
said = command("compare", *TRAIN, *asked)
assert "lora" in said and "weightlora" in said
assert set(json.loads(Path("out/comparison.json").read_text())["methods"]) == {"lora", "weightlora"}
assert Path("out/comparison.png").read_bytes().startswith(b"\x89PNG")
