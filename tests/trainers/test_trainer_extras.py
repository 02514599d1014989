"""What else people ask of a Trainer: to stop early, to end with the best checkpoint, and to upload."""

import fnmatch
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers.trainer
from models import batch, lora_bert, samples, tiny_bert, training_arguments
from peft import PeftModel
from peft.utils import load_peft_weights
from runs import build
from transformers import EarlyStoppingCallback

from weightlora import WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.manifest import MANIFEST
from weightlora.state import STATE_FILE, read_state


def run(directory, settings, patience, best=1):
    """Every evaluation is worse than the one before, from step `best` on, and better until then."""
    arguments = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    arguments |= {"metric_for_best_model": "worse", "greater_is_better": False, "max_steps": 12}
    trainer = build(directory, settings, EarlyStoppingCallback(patience), **arguments)
    trainer.compute_metrics = lambda _: {"worse": float(abs(trainer.state.global_step - best))}
    trainer.train()
    return trainer


def assert_weights_of(checkpoint: Path, trainer) -> None:
    saved = load_peft_weights(str(checkpoint), device="cpu")
    for adapter in find_adapters(trainer.model):
        for key, factor in zip("AB", adapter.factors, strict=True):
            assert torch.equal(factor, saved[f"base_model.model.{adapter.name}.lora_{key}.weight"]), adapter.name


@pytest.mark.parametrize("rule", ["credit", "stoiht"])
def test_stopping_in_the_selection_phase_decides_on_the_best_weights_and_says_so(tmp_path, rule):
    message = r"training ended after 3 of 6 selection steps: .* The weights are those of .*checkpoint-1, the best ones"
    with pytest.warns(UserWarning, match=message):
        trainer = run(tmp_path, {"keep": 3, "select_steps": 6, "selection": rule}, patience=2)
    assert trainer.state.global_step == 3
    assert len(find_adapters(trainer.model)) == 3 and trainer.weightlora.selector.phase == "train"
    assert_weights_of(tmp_path / "checkpoint-1", trainer)


def test_the_best_weights_get_the_gates_that_they_were_trained_with(tmp_path):
    """The gates of a later step belong to other weights."""
    settings = {"keep": 3, "select_steps": 9, "selection": "stoiht", "omega_lr": 5.0}
    with pytest.warns(UserWarning, match="The weights are those of .*checkpoint-4, the best ones"):
        trainer = run(tmp_path, settings, patience=3, best=4)
    selector = trainer.weightlora.selector
    then, now = (read_state(tmp_path / f"checkpoint-{step}") for step in (4, 7))
    assert then["omega"] != now["omega"], "the test would show nothing"
    gates = dict(zip(then["names"], then["omega"], strict=True))
    scalings = dict(zip(then["names"], then["scalings"], strict=True))
    kept = sorted(gates, key=gates.get, reverse=True)[:3]
    assert sorted(selector.kept) == sorted(kept)
    for adapter in selector.adapters:
        assert adapter.scaling == pytest.approx(scalings[adapter.name] * gates[adapter.name], rel=1e-6)
    assert_weights_of(tmp_path / "checkpoint-4", trainer)


def test_stopping_after_it_counts_from_the_disconnect_and_ends_with_the_best_since(tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training ended")
        trainer = run(tmp_path, {"keep": 3, "select_steps": 3}, patience=3)
    assert "checkpoint-1 was the best checkpoint, but has the adapters from before the choice" in caplog.text
    assert trainer.state.global_step == 6, "3 was the best one since; 4, 5 and 6 were worse"
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    assert_weights_of(tmp_path / "checkpoint-3", trainer)


def test_a_round_in_which_no_adapter_leaves_begins_the_search_anew(tmp_path):
    """Ranks grow in it, so an earlier checkpoint does not fit any more."""
    settings = {"keep": 11, "rounds": 3, "select_steps": 6, "expand": "random", "expand_rank": 24}
    trainer = run(tmp_path, settings, patience=4)
    kept = [entry["kept"] for entry in trainer.weightlora.selector.history if "kept" in entry]
    assert [len(names) for names in kept] == [12, 11, 11], "the test would show nothing"
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-6")


class Hub:
    """Stands for the client of the hub: lists what it is given."""

    def __init__(self):
        self.uploads = []

    def create_repo(self, name, **_):
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, folder_path, ignore_patterns=(), path_in_repo="", **_):
        names = (path.name for path in Path(folder_path).iterdir())
        names = {name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ignore_patterns)}
        card = Path(folder_path) / "README.md"
        self.uploads.append((path_in_repo, names, card.read_text() if card.is_file() else ""))
        return SimpleNamespace(is_done=lambda: True, jobs=[], done=lambda: True)


def test_what_is_uploaded_is_a_plain_adapter_with_a_card(tmp_path, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    hub_settings = {"push_to_hub": True, "hub_model_id": "me/chosen", "hub_strategy": "checkpoint"}
    arguments = training_arguments(tmp_path, max_steps=4, save_steps=4, **hub_settings)
    config = WeightLoraConfig(keep=3, select_steps=2)
    trainer = WeightLoraTrainer(lora_bert(), arguments, train_dataset=samples(8), weightlora=config)
    trainer.train()
    trainer.push_to_hub()
    (_, model, _), (place, checkpoint, card), *_, (_, final, final_card) = hub.uploads
    plain = {"adapter_config.json", "adapter_model.safetensors", "training_args.bin"}
    ours = {"selection.json", "history.jsonl", "log.jsonl"}  # the run directory
    assert model == plain | ours
    assert place == "last-checkpoint" and checkpoint > plain | {
        STATE_FILE,
        MANIFEST,
        "trainer_state.json",
        "optimizer.pt",
    }
    assert final == plain | ours | {"README.md"}
    for text in (card, final_card):
        assert "- weightlora" in text.split("---")[1] and "library_name: peft" in text.split("---")[1]
        assert text.count("## Adapters") == 1 and "3 of 12 LoRA adapters were kept" in text
        assert all(f"| <code>{name}</code> | 4 |" in text for name in trainer.weightlora.selector.kept)
    loaded = PeftModel.from_pretrained(tiny_bert(), tmp_path)
    trainer.model.eval(), loaded.eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch(1)).logits, trainer.model(**batch(1)).logits)
