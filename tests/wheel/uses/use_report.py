"""The extra `report`: the page, and the pictures."""

from pathlib import Path

from tiny import batch, command, lora
from torch.optim import AdamW

from weightlora import Selection, WeightLora, WeightLoraConfig

model = lora()
optimizer = AdamW(p for p in model.parameters() if p.requires_grad)
selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=30), run_dir="run")
for _ in range(30):
    model(**batch()).loss.backward()
    optimizer.step()
    selector.step()
    optimizer.zero_grad()
command("show", "run", "--output", "page.html", "--output", "pictures", "--output", "data.json")
page = Path("page.html").read_text()
assert page.startswith("<!DOCTYPE html>") and all(name in page for name in selector.kept)
assert Path("pictures/selection.png").read_bytes().startswith(b"\x89PNG")
assert Path("pictures/selection.svg").stat().st_size > 1000 and Path("data.json").is_file()
assert Selection.load("run").plot().axes
