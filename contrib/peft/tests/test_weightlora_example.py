# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer


sys.path.append(str(Path(__file__).parents[1] / "examples" / "weightlora"))
from weightlora_callback import WeightLoraCallback, adapter_parameters, lora_layers


KEEP = 3
SELECT_STEPS = 4
MAX_STEPS = 6


def get_base_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def get_model(base_model=None, **kwargs):
    base_model = get_base_model() if base_model is None else base_model
    torch.manual_seed(1)
    kwargs = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | kwargs
    return get_peft_model(base_model, LoraConfig(**kwargs))


def get_dataset(size=8 * MAX_STEPS):
    input_ids = torch.randint(0, 50, (size, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in input_ids]


def get_trainer(output_dir, model, callbacks, **kwargs):
    kwargs = {"max_steps": MAX_STEPS, "learning_rate": 1e-2, "save_strategy": "no"} | kwargs
    kwargs |= {"per_device_train_batch_size": 8, "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments(output_dir=str(output_dir), **kwargs)
    return Trainer(model, args, train_dataset=get_dataset(), eval_dataset=get_dataset(8), callbacks=callbacks)


def begin(output_dir, model, state=None, keep=1, select_steps=1, **kwargs):
    """Starts a training without a step."""
    args = TrainingArguments(output_dir=str(output_dir), report_to="none", use_cpu=True, **kwargs)
    weightlora = WeightLoraCallback(keep=keep, select_steps=select_steps)
    weightlora.on_train_begin(args, state or TrainerState(max_steps=MAX_STEPS), TrainerControl(), model=model)
    return weightlora


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One training for the tests that only look at what it left."""
    base_model = get_base_model()
    left = {"original": dict(base_model.named_modules()), "at_choice": {}}
    model = left["model"] = get_model(base_model)
    left["candidates"] = list(lora_layers(model))

    class Snapshot(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == SELECT_STEPS:
                for name, layer in lora_layers(model).items():
                    left["at_choice"][name] = [p.detach().clone() for p in adapter_parameters(layer)]

    weightlora = left["weightlora"] = WeightLoraCallback(keep=KEEP, select_steps=SELECT_STEPS)
    left["trainer"] = get_trainer(tmp_path_factory.mktemp("run"), model, [weightlora, Snapshot()])
    left["trainer"].train()
    return left


class TestWeightLora:
    def test_keeps_the_adapters_with_the_highest_credit(self, run):
        credit = run["weightlora"].credit
        best = sorted(credit, key=lambda name: float(credit[name]), reverse=True)[:KEEP]
        assert len(run["candidates"]) == 14  # 7 linear layers in each of 2 blocks
        assert list(credit) == run["candidates"]
        assert len(set(map(float, credit.values()))) == 14
        assert run["weightlora"].kept == [name for name in run["candidates"] if name in best]
        assert list(lora_layers(run["model"])) == run["weightlora"].kept

    def test_a_removed_layer_is_the_base_layer_again(self, run):
        modules = dict(run["model"].get_base_model().named_modules())
        for name in run["candidates"]:
            if name in run["weightlora"].kept:
                assert isinstance(modules[name], LoraLayer)
                assert modules[name].get_base_layer() is run["original"][name]
            else:
                assert modules[name] is run["original"][name]

    def test_the_optimizer_holds_only_survivors(self, run):
        survivors = {id(p) for layer in lora_layers(run["model"]).values() for p in adapter_parameters(layer)}
        optimizer = run["trainer"].optimizer
        assert len(survivors) == 2 * KEEP
        assert {id(p) for p in run["model"].parameters() if p.requires_grad} == survivors
        assert {id(p) for group in optimizer.param_groups for p in group["params"]} == survivors
        assert {id(p) for p in optimizer.state} == survivors
        assert all(int(state["step"]) == MAX_STEPS for state in optimizer.state.values())
        assert len(optimizer.param_groups) == len(run["trainer"].lr_scheduler.get_last_lr())

    def test_survivors_continue_training(self, run):
        layers = lora_layers(run["model"])
        assert list(run["at_choice"]) == list(layers)
        for name, before in run["at_choice"].items():
            for parameter, old in zip(adapter_parameters(layers[name]), before):
                assert not torch.equal(parameter, old)

    def test_reloaded_model_has_the_same_adapters_and_logits(self, run, tmp_path):
        model = run["model"].eval()
        model.save_pretrained(tmp_path)
        assert set(model.peft_config["default"].target_modules) == set(run["weightlora"].kept)
        reloaded = PeftModel.from_pretrained(get_base_model(), tmp_path).eval()
        assert list(lora_layers(reloaded)) == run["weightlora"].kept
        assert reloaded.base_model.targeted_module_names == model.base_model.targeted_module_names
        input_ids = torch.arange(16).view(2, 8)
        with torch.no_grad():
            logits, expected = reloaded(input_ids=input_ids).logits, model(input_ids=input_ids).logits
            with model.disable_adapter():
                base_logits = model(input_ids=input_ids).logits
        assert torch.equal(logits, expected)
        assert not torch.allclose(logits, base_logits)

    def test_credit_adds_up_to_the_decrease_of_the_loss(self, tmp_path):
        """If steps are small and the adapters are all that trains, their credits are shares of the decrease."""
        batch = {key: torch.stack([row[key] for row in get_dataset(8)]) for key in ("input_ids", "labels")}
        losses = []

        class RecordLoss(TrainerCallback):
            @torch.no_grad()
            def on_optimizer_step(self, args, state, control, model=None, **kwargs):
                losses.append(float(model(**batch).loss))

        weightlora, model = WeightLoraCallback(keep=1, select_steps=20), get_model()
        with torch.no_grad():
            losses.append(float(model(**batch).loss))
        kwargs = {"max_steps": 21, "learning_rate": 1e-3, "max_grad_norm": 0.0}
        trainer = get_trainer(tmp_path, model, [weightlora, RecordLoss()], **kwargs)
        trainer.train_dataset = get_dataset(8)  # the same batch in every step
        trainer.train()
        decrease = losses[0] - losses[20]
        assert decrease > 0.1
        assert float(sum(weightlora.credit.values())) == pytest.approx(decrease, rel=0.02)

    def test_ranks_layers_to_transform_and_rslora_survive_a_reload(self, tmp_path):
        model = get_model(
            target_modules=["q_proj", "v_proj", "up_proj"],
            layers_to_transform=[1],
            rank_pattern={"up_proj": 2},
            alpha_pattern={"v_proj": 3},
            use_rslora=True,
        )
        scaling = {name: layer.scaling for name, layer in lora_layers(model).items()}
        weightlora = WeightLoraCallback(keep=2, select_steps=SELECT_STEPS)
        get_trainer(tmp_path, model, [weightlora]).train()
        assert len(lora_layers(model)) == 2
        assert all(name.startswith("model.layers.1.") for name in weightlora.kept)
        assert model.peft_config["default"].layers_to_transform is None
        model.eval().save_pretrained(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of patterns that match no module
            reloaded = PeftModel.from_pretrained(get_base_model(), tmp_path).eval()
        assert {name: layer.scaling for name, layer in lora_layers(reloaded).items()} == {
            name: scaling[name] for name in weightlora.kept
        }
        input_ids = torch.arange(8).view(1, 8)
        with torch.no_grad():
            assert torch.equal(reloaded(input_ids=input_ids).logits, model(input_ids=input_ids).logits)

    def test_unused_module_and_a_name_that_is_the_end_of_another_one(self, tmp_path):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(8, 8)
                self.unused = nn.ModuleDict({"linear": nn.Linear(8, 8)})

            def forward(self, x, labels):
                return {"loss": (self.linear(x) - labels).square().mean()}

        model = get_peft_model(Model(), LoraConfig(r=2, target_modules=["linear"]))
        weightlora = WeightLoraCallback(keep=1, select_steps=1)
        trainer = get_trainer(tmp_path, model, [weightlora], optim="sgd", lr_scheduler_type="constant")
        trainer.train_dataset = [{"x": torch.randn(8), "labels": torch.ones(8)} for _ in range(8)]
        trainer.create_optimizer()
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = -1e-2  # so that the loss grows, and the credit is negative
        trainer.train()
        assert float(weightlora.credit["linear"]) < 0 == float(weightlora.credit["unused.linear"])
        assert weightlora.kept == ["linear"]
        model.save_pretrained(tmp_path)
        assert list(lora_layers(PeftModel.from_pretrained(Model(), tmp_path))) == ["linear"]

    def test_best_checkpoint_is_from_after_the_choice(self, tmp_path):
        model = get_model()
        weightlora = WeightLoraCallback(keep=KEEP, select_steps=2)
        kwargs = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
        trainer = get_trainer(tmp_path, model, [weightlora], max_steps=4, load_best_model_at_end=True, **kwargs)
        trainer.train()
        losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
        assert losses[0] < min(losses[1:])  # the adapters that leave take what they learned with them
        assert trainer.state.best_metric == min(losses[1:])
        assert trainer.state.best_global_step == 2 + losses[1:].index(min(losses[1:]))
        assert list(lora_layers(model)) == weightlora.kept

    @pytest.mark.parametrize(
        "kwargs, feature",
        [
            ({"use_dora": True}, "use_dora"),
            ({"bias": "lora_only"}, "bias"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights"),
            ({"target_parameters": ["q_proj.weight"], "target_modules": ["v_proj"]}, "target_parameters"),
        ],
    )
    def test_unsupported_config(self, tmp_path, kwargs, feature):
        with pytest.raises(ValueError, match=f"does not support `{feature}"):
            begin(tmp_path, get_model(**kwargs))

    def test_unsupported_model(self, tmp_path):
        with pytest.raises(TypeError, match="needs a `PeftModel`, not a LlamaForCausalLM"):
            begin(tmp_path, get_base_model())
        ia3 = get_peft_model(get_base_model(), IA3Config(target_modules=["v_proj"], feedforward_modules=[]))
        with pytest.raises(ValueError, match=r"does not support .*IA3"):
            begin(tmp_path, ia3)
        with pytest.raises(ValueError, match="does not support adapters that are not trainable"):
            begin(tmp_path, get_model().requires_grad_(False))
        two_adapters = get_model()
        two_adapters.add_adapter("other", LoraConfig(r=2, target_modules=["v_proj"]))
        with pytest.raises(ValueError, match="does not support more than one adapter"):
            begin(tmp_path, two_adapters)
        attention = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
        with pytest.raises(ValueError, match=r"does not support `nn.MultiheadAttention`"):
            begin(tmp_path, get_peft_model(attention, LoraConfig(target_modules=["0", "1"])))

    def test_unsupported_training(self, tmp_path):
        with pytest.raises(ValueError, match="does not support resuming"):
            begin(tmp_path, get_model(), TrainerState(max_steps=MAX_STEPS, global_step=1))
        with pytest.raises(ValueError, match="does not support `torch_compile=True`"):
            begin(tmp_path, get_model(), torch_compile=True)
        with pytest.raises(ValueError, match="does not support `fp16=True`"):
            begin(tmp_path, get_model(), fp16=True)

    def test_numbers_out_of_range(self, tmp_path):
        for keep, select_steps in ((0, 1), (1, 0)):
            with pytest.raises(ValueError, match="must be at least 1"):
                WeightLoraCallback(keep=keep, select_steps=select_steps)
        with pytest.raises(ValueError, match="`keep` is 14, and the model has 14 adapters"):
            begin(tmp_path, get_model(), keep=14)
        with pytest.raises(ValueError, match="`select_steps` is 6, and training has 6 steps"):
            begin(tmp_path, get_model(), select_steps=MAX_STEPS)
        begin(tmp_path, get_model(), keep=13, select_steps=MAX_STEPS - 1)

    @pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
    def test_credit_that_says_nothing(self, tmp_path, value):
        weightlora = begin(tmp_path, model := get_model())
        weightlora.credit["model.layers.1.self_attn.v_proj"].fill_(value)
        with pytest.raises(ValueError, match="not finite, or 0 for all adapters"):
            weightlora.on_step_end(None, TrainerState(global_step=1), None, model=model)
        assert len(lora_layers(model)) == 14

    def test_training_that_ends_before_the_choice(self, tmp_path, caplog):
        weightlora = begin(tmp_path, model := get_model(), select_steps=2)
        weightlora.on_train_end(None, TrainerState(global_step=1), None)
        assert "all adapters are still on the model" in caplog.text
        assert weightlora.kept == []
        assert len(lora_layers(model)) == 14
