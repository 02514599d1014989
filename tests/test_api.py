"""The API page lists what is public, and the docstring of each class and function there has an example that runs."""

import inspect
import pydoc
import re
import textwrap
from typing import Any

import pytest
from models import BERT_TARGETS, adamw, batch
from pages import DOCS
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

import weightlora
from weightlora import Selection, WeightLora, WeightLoraConfig, save_run
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


def a_base() -> BertForSequenceClassification:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=16, **sizes, **dropout))


def taken_for_granted(kind: str) -> dict[str, Any]:
    """The names that the examples do not define, in a directory with a finished run and a checkpoint."""
    a_base().save_pretrained("base")
    base = BertForSequenceClassification.from_pretrained("base")
    loader = [batch(step) for step in range(STEPS)]
    first, optimizer = a_model(BertForSequenceClassification.from_pretrained("base"), BERT_TARGETS)
    selector = WeightLora(first, optimizer, WeightLoraConfig(keep=3, select_steps=30))
    for one in loader:
        first(**one).loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    save_run(selector, "runs/first")
    first.save_pretrained("out/checkpoint-100")
    write_state(selector.state_dict(), "out/checkpoint-100")
    write_manifest("out/checkpoint-100", step=100)
    first.save_pretrained("checkpoint-100")

    targets = [f"layer.1.{name}" for name in ("attention.self.query", "attention.self.value")]
    model, optimizer = a_model(a_base(), targets if kind in UPPER_BLOCK else BERT_TARGETS)
    args = Seq2SeqTrainingArguments("trained", max_steps=STEPS, report_to="none", save_strategy="no", use_cpu=True)
    return {
        **{name: getattr(weightlora, name) for name in weightlora.__all__ if name not in ONLY_COMPILED},
        "weightlora": weightlora,
        "base": base,
        "model": model,
        "optimizer": optimizer,
        "loader": loader,
        "selector": selector,
        "selection": Selection.of(selector),
        "data": [{name: value[0] for name, value in batch(step, size=1).items()} for step in range(STEPS)],
        "args": args,
        "lora_config": LoraConfig(task_type="SEQ_CLS", r=4, target_modules=BERT_TARGETS),
        **{kind.__name__: kind for kind in (LoraConfig, Trainer, Seq2SeqTrainer)},
        "get_peft_model": get_peft_model,
    }


def test_the_page_has_every_public_name() -> None:
    assert {name.rpartition(".")[2] for name in PUBLIC} >= set(weightlora.__all__)
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLIC)
def test_its_example_runs(name: str, tmp_path, monkeypatch, capsys) -> None:
    kind = name.rpartition(".")[2]
    if kind in ONLY_COMPILED:
        pytest.importorskip(ONLY_COMPILED[kind])
    code = example_of(pydoc.locate(name))
    compiled = compile(code, name, "exec")
    if kind in ONLY_COMPILED:
        return
    monkeypatch.chdir(tmp_path)
    given = taken_for_granted(kind)
    capsys.readouterr()
    exec(compiled, given)
    assert "print(" not in code or capsys.readouterr().out.strip()
