"""The API page lists what is public, and the docstring of each class and function there has an example that runs."""

import inspect
import pydoc
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from models import BERT_TARGETS, adamw, batch, tiny_bert, train
from pages import DOCS
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

import weightlora
from weightlora import WeightLora, WeightLoraConfig, save_run
from weightlora.manifest import write_manifest
from weightlora.state import write_state

PUBLIC = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
EXAMPLE = re.compile(r"^Example:\n((?:    .*\n|\n)+)", re.MULTILINE)
FENCED = re.compile(r"\A```python\n(.*?)^```\s*\Z", re.MULTILINE | re.DOTALL)
# Name -> what it imports, and takes long. tests/test_examples.py runs it.
ONLY_COMPILED = {"WeightLoraSFTTrainer": "trl", "WeightLoraLightningCallback": "lightning"}
UPPER_BLOCK = {"PrefixCache", "PrefixCacheCallback"}
STEPS = 40


def example_of(public: Any) -> str:
    """The code of the example in a docstring."""
    found = EXAMPLE.search(f"{inspect.getdoc(public)}\n")
    assert found is not None, "there is no example"
    fenced = FENCED.search(textwrap.dedent(found[1]))
    assert fenced is not None, "the example is not one block of Python"
    return fenced[1]


def a_model(base: Any, targets: list[str]) -> tuple[Any, Any]:
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=targets))
    return model, adamw(model)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, WeightLora]:
    """A directory with a base model, a run and a checkpoint; and the selector that made them. Tests only read them."""
    place = tmp_path_factory.mktemp("finished")
    tiny_bert().save_pretrained(place / "base")
    model, optimizer = a_model(BertForSequenceClassification.from_pretrained(place / "base"), BERT_TARGETS)
    model.peft_config["default"].base_model_name_or_path = "base"
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=30))
    train(model, optimizer, selector, steps=30)
    save_run(selector, place / "runs" / "first")
    for checkpoint in (place / "checkpoint-100", place / "out" / "checkpoint-100"):
        model.save_pretrained(checkpoint)
        write_state(selector.state_dict(), checkpoint)
        write_manifest(checkpoint, step=100)
    return place, selector


def taken_for_granted(kind: str, selector: WeightLora) -> dict[str, Any]:
    """The names that the examples do not define."""
    targets = [f"layer.1.{name}" for name in ("attention.self.query", "attention.self.value")]
    model, optimizer = a_model(tiny_bert(), targets if kind in UPPER_BLOCK else BERT_TARGETS)
    args = Seq2SeqTrainingArguments("trained", max_steps=STEPS, report_to="none", save_strategy="no", use_cpu=True)
    return {
        **{name: getattr(weightlora, name) for name in weightlora.__all__ if name not in ONLY_COMPILED},
        **{one.__name__: one for one in (LoraConfig, Seq2SeqTrainer, Trainer, get_peft_model)},
        "weightlora": weightlora,
        "base": tiny_bert(),
        "model": model,
        "optimizer": optimizer,
        "loader": [batch(step) for step in range(STEPS)],
        "data": [{name: value[0] for name, value in batch(step, size=1).items()} for step in range(STEPS)],
        "args": args,
        "lora_config": LoraConfig(task_type="SEQ_CLS", r=4, target_modules=BERT_TARGETS),
        "selector": selector,
    }


def test_the_page_has_every_public_name() -> None:
    assert {name.rpartition(".")[2] for name in PUBLIC} >= set(weightlora.__all__)
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLIC)
def test_its_example_runs(name: str, finished, tmp_path, monkeypatch, capsys) -> None:
    kind = name.rpartition(".")[2]
    if kind in ONLY_COMPILED:
        pytest.importorskip(ONLY_COMPILED[kind])
    code = example_of(pydoc.locate(name))
    compiled = compile(code, name, "exec")
    if kind in ONLY_COMPILED:
        return
    place, selector = finished
    monkeypatch.chdir(shutil.copytree(place, tmp_path / "here"))
    given = taken_for_granted(kind, selector)
    capsys.readouterr()
    exec(compiled, given)
    assert "print(" not in code or capsys.readouterr().out.strip()
