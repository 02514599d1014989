"""No extra: a loop of your own, the plain adapter, and its export; what is missing says what installs it."""

import sys
from importlib.metadata import version

import weightlora as package

HEAVY = {"datasets", "lightning", "matplotlib", "rich", "sklearn", "transformers.trainer"}
from weightlora import WeightLora, WeightLoraConfig, export_adapter  # noqa: E402

assert not HEAVY & set(sys.modules), HEAVY & set(sys.modules)

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from tiny import TRAIN, batch, command, llama, lora, pip_install, save_inputs, weightlora  # noqa: E402

model = lora()
optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=30), run_dir="run")
for _ in range(40):
    model(**batch()).loss.backward()
    optimizer.step()
    selector.step()
    optimizer.zero_grad()
kept = selector.kept
assert len(kept) == 3 and len(list(selector.adapters)) == 3

model.save_pretrained("adapter")
again, given = PeftModel.from_pretrained(llama(), "adapter").eval(), batch()
assert sorted(again.peft_config["default"].target_modules) == sorted(kept)
assert torch.equal(again(**given).logits, model.eval()(**given).logits)
assert not torch.equal(llama().eval()(**given).logits, model(**given).logits)

save_inputs()
assert export_adapter("adapter", "compact", "compact", base="base").adapters == 3
command("export", "adapter", "served", "--base", "base")
PeftModel.from_pretrained(llama(), "served")
assert command("--version") == f"weightlora {version('weightlora')}\n"
assert all(name in weightlora("show", "run", "--format", "axolotl")[0] for name in kept)
shown, said = weightlora("show", "run")
assert shown.startswith("run: 3 of 14 modules are kept")
assert said == "there is no picture, because matplotlib is not installed: run pip install 'weightlora[report]'.\n"

for extra, *arguments in (
    ("train", "train", *TRAIN, "--output_dir", "out"),
    ("train", "select", *TRAIN),
    ("compare", "compare", *TRAIN, "--output_dir", "out"),
    ("demo", "quickstart"),
    ("demo", "completion", "bash"),
    ("report", "show", "run", "--output", "page.html"),
    ("export", "export", "adapter", "gguf", "--base", "base", "--profile", "gguf"),
):
    _, said = weightlora(*arguments, code=2)
    assert said.count("\n") == 1 and said.endswith(f" is not installed: run pip install 'weightlora[{extra}]'.\n"), (
        said
    )
try:
    package.WeightLoraLightningCallback  # noqa: B018
except ImportError as error:
    assert str(error) == "lightning is not installed: run pip install 'weightlora[lightning]'."
else:
    raise AssertionError("lightning is there")

# What the sentence says helps, and leaves the installed package as it is.
pip_install("weightlora[export]")
command("export", "adapter", "gguf", "--base", "base", "--profile", "gguf")
