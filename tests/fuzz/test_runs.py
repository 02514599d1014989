"""Settings that nobody combined: a resumed run ends bit for bit as the whole one; a choice, as its list alone."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fuzzing import fuzz, outcome_of
from hypothesis import given
from hypothesis import strategies as st
from models import batch, lora_bert, lora_gpt2
from peft import PeftModel
from runs import STEPS, build, callback_of, outcome, same
from transformers import Trainer

from weightlora import WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.adapters.surgery import disconnect_

MODELS = {"bert": partial(lora_bert, dropout=0.1), "gpt2": lora_gpt2}
LORA: dict[str, list[Any]] = {
    "r": [1, 2, 3],
    "lora_alpha": [1, 4],
    "lora_dropout": [0.1],
    "use_rslora": [True],
    "use_dora": [True],
    "bias": ["all"],
    "init_lora_weights": ["gaussian"],
    "modules_to_save": [["classifier", "score"]],
    "rank_pattern": [{"key|c_fc": 4}],
    "alpha_pattern": [{"query|c_attn": 6}],
    "layers_to_transform": [[1]],
}
OF_ALL: dict[str, list[Any]] = {"expand": ["random", "qr", "restart"], "select_memory": ["low"]}
ROUNDS = {"select_steps": [3, 4, 0.5], "rounds": [2]}
SETTINGS: dict[str, dict[str, list[Any]]] = {
    "gradient": {"probe_batches": [1, 2]},
    "random": ROUNDS,
    "credit": ROUNDS,
    "stoiht": {
        **ROUNDS,
        "omega_lr": [0.5, 2.0],
        "warmup_steps": [1],
        "threshold_every": [2],
        "omega_follows_lr": [True],
        "constraint": ["simplex"],
        "rank_by": ["magnitude"],
    },
}
ARGUMENTS: dict[str, list[Any]] = {
    "per_device_train_batch_size": [2, 3],
    "gradient_accumulation_steps": [2],
    "max_grad_norm": [0.0, 0.1],
    "weight_decay": [0.1],
    "lr_scheduler_type": ["cosine", "constant", "polynomial", "inverse_sqrt"],
    "optim": ["adamw_torch_fused", "sgd", "adafactor", "rmsprop", "adagrad"],
    "bf16": [True],
    "gradient_checkpointing": [True],
    "label_smoothing_factor": [0.1],
    "neftune_noise_alpha": [5.0],
    "train_sampling_strategy": ["sequential"],
    "dataloader_drop_last": [True],
    "seed": [7],
}


def some(known: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Up to three of the settings, with a value each."""
    names = st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True)
    return names.flatmap(lambda found: st.fixed_dictionaries({name: st.sampled_from(known[name]) for name in found}))


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    """A rule, a budget, and settings of both."""
    rule = draw(st.sampled_from(sorted(SETTINGS)))
    steps = {"select_steps": 0} if rule == "random" else {}
    budget = {draw(st.sampled_from(["keep", "keep_parameters"])): draw(st.sampled_from([0.2, 0.5, 0.8]))}
    return {"selection": rule, **budget, **steps, **draw(some(SETTINGS[rule] | OF_ALL))}


@given(
    st.sampled_from(sorted(MODELS)),
    some(LORA),
    choices(),
    some(ARGUMENTS),
    st.sampled_from([WeightLoraTrainer, Trainer]),
    st.integers(1, STEPS - 1),
)
@fuzz(16)
def test_a_run_ends_as_one_that_was_resumed_and_as_one_with_its_list(
    name: str, lora: dict[str, Any], settings: dict[str, Any], arguments: dict[str, Any], kind: type[Trainer], cut: int
):
    make = partial(MODELS[name], **lora)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)

        def run() -> Trainer:
            trainer = build(place, settings, kind=kind, model=make(), **arguments)
            trainer.train()
            return trainer

        whole = outcome_of(run, "runs: settings")
        if whole is None:
            return
        end, kept = outcome(whole), {adapter.name for adapter in find_adapters(whole.model, check=False)}
        resumed = build(place, settings, kind=kind, model=make(), **arguments)
        resumed.train(str(place / f"checkpoint-{cut}"))
        same(outcome(resumed), end)

        whole.save_model(directory)
        loaded = PeftModel.from_pretrained(make().unload(), directory).eval()
        model = whole.accelerator.unwrap_model(whole.model, keep_fp32_wrapper=False).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(**batch()).logits, model(**batch()).logits, atol=1e-5, rtol=1e-5)

        if callback_of(whole).selector.config.steps == 0 and "expand" not in settings:
            alone = build(place / "alone", {}, kind=Trainer, model=make(), **arguments)
            alone.remove_callback(callback_of(alone))
            disconnect_(alone.model, [one for one in find_adapters(alone.model) if one.name not in kept])
            alone.train()
            same(outcome(alone), (None, *end[1:]))
