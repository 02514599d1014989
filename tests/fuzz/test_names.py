"""Modules with names that nobody would give: what plain PEFT saves and loads, we select, save and load as well."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from fuzzing import ODD, fuzz, outcome_of
from hypothesis import assume, given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from weightlora import WeightLora, WeightLoraConfig, save_run
from weightlora.run import HISTORY, SELECTION
from weightlora.trainers.card import END, section

WORDS = [
    "lora_A",
    "default",
    "base_layer",
    "a|b",
    "`a`",
    "*",
    "(a+)+$",
    "[",
    "\\",
    "^a",
    "a$",
    "0",
    "q",
    "k",
    "é",
    "</a>",
]


class Net(nn.Module):
    """Two blocks of two linear layers, with the given names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        for block in ("0", "1"):
            self.add_module(block, nn.Module())
            for name in names:
                self.get_submodule(block).add_module(name, nn.Linear(6, 6))
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in ("0", "1"):
            for layer in self.get_submodule(block).children():
                x = layer(x).tanh()
        return self.head(x)


def fits(name: str) -> bool:
    """Whether torch takes the name, and a file of JSON and of safetensors can hold it."""
    return bool(name) and "." not in name and not hasattr(nn.Module(), name) and name.isprintable()


names = st.lists(
    (st.sampled_from(WORDS) | st.sampled_from(ODD) | st.text(max_size=8)).filter(fits),
    min_size=2,
    max_size=3,
    unique=True,
)


def lora(names: list[str]) -> tuple[Any, list[str]]:
    base = Net(names)
    targets = [f"{block}.{name}" for block in ("0", "1") for name in names]
    torch.manual_seed(1)
    return get_peft_model(base, LoraConfig(r=2, target_modules=targets)), targets


def loads(names: list[str], model: Any, directory: Path) -> bool:
    """Whether plain PEFT gives back the same model."""
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    loaded = PeftModel.from_pretrained(Net(names), directory)
    return bool(torch.allclose(loaded.eval()(x), model.eval()(x)))


def peft_alone_can(names: list[str], directory: Path) -> bool:
    """PEFT has names of its own, such as `lora_A`, and a module of such a name is lost in its file."""
    try:
        model, _ = lora(names)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_()
        model.save_pretrained(directory)
        return loads(names, model, directory)
    except Exception:  # whatever it is, it is not ours
        return False


@given(names, st.sampled_from(["none", "random"]), st.integers(1, 3))
@fuzz(14)
def test_names_are_selected_by_saved_and_loaded(names: list[str], expand: str, keep: int):
    with tempfile.TemporaryDirectory() as place:
        assume(peft_alone_can(names, Path(place) / "plain"))
        directory = Path(place) / "run"

        def select() -> Any:
            model, targets = lora(names)
            optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1)
            config = WeightLoraConfig(keep=keep, select_steps=3, expand=expand)
            selector = WeightLora(model, optimizer, config, run_dir=Path(place) / "log")
            for step in range(5):
                model(torch.randn(4, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
                optimizer.step()
                selector.step()
                optimizer.zero_grad()
            save_run(selector, directory)
            assert selector.names == targets and len(selector.kept) == keep
            return model, selector

        found = outcome_of(select, "names")
        if found is None:
            return
        model, selector = found
        assert loads(names, model, directory / "adapter"), "plain PEFT loads the same model"
        kept = [row["name"] for row in json.loads((directory / SELECTION).read_text())["adapters"] if row["kept"]]
        assert kept == selector.kept
        history = [json.loads(line) for line in (directory / HISTORY).read_text().split("\n") if line]
        assert history == selector.history
        card = section(selector)
        assert card.count(END) == 1 and card.count("<code>") == keep
