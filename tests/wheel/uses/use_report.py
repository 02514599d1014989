"""The extra `report`: the page, and the pictures."""

from pathlib import Path

from tiny import command, lora
from torch.optim import AdamW

from weightlora import Selection, WeightLora, WeightLoraConfig

model = lora()
selector = WeightLora(
    model, AdamW(model.parameters()), WeightLoraConfig(keep=3, selection="random"), run_dir="run", total_steps=1
)
command("show", "run", "--output", "page.html", "--output", "pictures", "--output", "data.json")
page = Path("page.html").read_text()
assert page.startswith("<!DOCTYPE html>") and all(name in page for name in selector.kept)
assert Path("pictures/selection.png").read_bytes().startswith(b"\x89PNG")
assert Path("pictures/selection.svg").stat().st_size > 1000 and Path("data.json").is_file()
assert Selection.load("run").plot().axes
