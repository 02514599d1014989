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
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer


sys.path.append(str(Path(__file__).parents[1] / "examples" / "lora_module_selection"))
from module_selection import (
    draw_signs,
    draws_of,
    gradient_norms,
    lora_layers,
    number_of_draws,
    relative_to_blocks,
    select_target_modules,
)


def get_base_model(cls=LlamaForCausalLM, **kwargs):
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
        pad_token_id=0,
        **kwargs,
    )
    return cls(config)


def get_model(base_model=None, **kwargs):
    base_model = get_base_model() if base_model is None else base_model
    torch.manual_seed(1)
    kwargs = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | kwargs
    return get_peft_model(base_model, LoraConfig(**kwargs))


def get_batches(number=4):
    input_ids = torch.randint(0, 50, (number, 8, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": batch, "labels": batch} for batch in input_ids]


class Nested(nn.Module):
    """The name of one module is the end of the name of another one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.other = nn.ModuleDict({"linear": nn.Linear(8, 8)})
        self.device = torch.device("cpu")

    def forward(self, x):
        output = type("Output", (), {})()
        output.loss = self.linear(x).square().mean() + 1e-3 * self.other["linear"](x).square().mean()
        return output


class Normed(nn.Module):
    """Batch norm has statistics, which training updates."""

    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.device = torch.device("cpu")

    def forward(self, x):
        output = type("Output", (), {})()
        output.loss = self.second(self.first(self.norm(x))).square().mean()
        return output


class TestSelectTargetModules:
    def test_buffers_stay_as_they_were(self):
        model = get_peft_model(Normed(), LoraConfig(target_modules=["first", "second"]))
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        select_target_modules(model, [{"x": torch.rand(4, 8)}], budget=0.5)
        assert len(before) == 3
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())

    def test_selects_the_best_scores_that_fit(self):
        model = get_model()
        scores = relative_to_blocks(gradient_norms(model, lora_layers(model), get_batches()))
        sizes = {
            name: sum(p.numel() for key, p in layer.named_parameters() if "lora_" in key)
            for name, layer in lora_layers(model).items()
        }
        assert len(scores) == 14  # 7 linear layers in each of 2 blocks
        assert len(set(scores.values())) == 14
        selected = select_target_modules(model, get_batches(), budget=0.3)
        left = 0.3 * sum(sizes.values()) - sum(sizes[name] for name in selected)
        assert 0 <= left
        assert selected == [name for name in scores if name in selected]
        for name in scores.keys() - set(selected):
            # Each module that is left out had no room beside those with a higher score.
            better = sum(sizes[other] for other in selected if scores[other] > scores[name])
            assert better + sizes[name] > 0.3 * sum(sizes.values())

    def test_the_score_is_the_mean_norm_over_draws(self):
        """To first order, it is the decrease of the loss by a step that moves each entry by the same amount."""
        model, step = get_model(), 1e-3
        norms = gradient_norms(model, lora_layers(model), get_batches(2))
        name = "model.layers.1.mlp.up_proj"
        layer = lora_layers(model)[name]
        lora_a, weight = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        draws = number_of_draws(layer, "default")
        assert draws > 1

        def loss():
            return sum(model(**batch).loss for batch in get_batches(2))

        own, decreases = lora_a.detach().clone(), []
        for draw in range(draws):
            lora_a.data = draws_of(own, draw_signs(draws, own.shape[1])).unflatten(0, (draws, -1))[draw]
            model.zero_grad()
            loss().backward()
            signs = weight.grad.sign()
            with torch.no_grad():
                weight -= step * signs
                low = loss()
                weight += 2 * step * signs
                decreases.append(float(loss() - low) / (2 * step))
                weight.zero_()
        assert sum(decreases) / draws == pytest.approx(norms[name], rel=0.005)
        assert max(decreases) > 1.1 * min(decreases)

    def test_only_so_many_batches_are_used(self):
        model, read = get_model(), []

        def batches():
            for batch in get_batches(4):
                read.append(batch)
                yield batch

        selected = select_target_modules(model, batches(), num_batches=2)
        assert len(read) == 2
        assert selected == select_target_modules(model, get_batches(4)[:2])

    def test_the_model_and_the_random_numbers_stay_as_they_were(self):
        model = get_model(lora_dropout=0.5).train()
        model.base_model.model.lm_head.eval()
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        training = {name: module.training for name, module in model.named_modules()}
        random_state = torch.get_rng_state()
        select_target_modules(model, get_batches())
        assert torch.equal(torch.get_rng_state(), random_state)
        assert {name: module.training for name, module in model.named_modules()} == training
        assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_a_new_model_has_the_selected_adapters_and_can_be_reloaded(self, tmp_path):
        candidates = get_model(rank_pattern={"q_proj": 2}, use_rslora=True)
        selected = select_target_modules(candidates, get_batches())
        config = candidates.peft_config["default"]
        base_model = candidates.unload()
        assert not any(isinstance(module, LoraLayer) for module in base_model.modules())
        config.target_modules = selected
        model = get_peft_model(base_model, config)
        assert list(lora_layers(model)) == selected
        model.save_pretrained(tmp_path)
        reloaded = PeftModel.from_pretrained(get_base_model(), tmp_path, is_trainable=True)
        assert list(lora_layers(reloaded)) == selected

    def test_the_head_of_a_classifier_is_trained_and_not_selected(self):
        base_model = get_base_model(LlamaForSequenceClassification, num_labels=3)
        candidates = get_model(base_model, task_type="SEQ_CLS")
        head = candidates.base_model.model.score.original_module.weight.clone()
        batches = [{**batch, "labels": torch.arange(8) % 3} for batch in get_batches()]
        config = LoraConfig(target_modules=select_target_modules(candidates, batches), task_type="SEQ_CLS")
        model = get_peft_model(candidates.unload(), config)
        assert "score" not in config.target_modules
        assert torch.equal(model.base_model.model.score.modules_to_save["default"].weight, head)
        assert model.base_model.model.score.modules_to_save["default"].weight.requires_grad

    def test_names_that_match_more_modules_become_a_regex(self):
        candidates = get_peft_model(Nested(), LoraConfig(r=2, target_modules=["linear"]))
        selected = select_target_modules(candidates, [{"x": torch.randn(4, 8)}], budget=0.5)
        assert selected == "linear"
        model = get_peft_model(candidates.unload(), LoraConfig(r=2, target_modules=selected))
        assert list(lora_layers(model)) == ["linear"]

    def test_embeddings_can_be_candidates(self):
        model = get_model(target_modules=["embed_tokens", "up_proj"])
        norms = gradient_norms(model, lora_layers(model), get_batches())
        assert len(norms) == 3
        assert min(norms.values()) > 0
        assert "model.embed_tokens" in select_target_modules(model, get_batches(), budget=0.9)

    def test_unsupported_model(self):
        with pytest.raises(TypeError, match="The model is a LlamaForCausalLM, not a `PeftModel`"):
            select_target_modules(get_base_model(), get_batches())
        ia3 = get_peft_model(get_base_model(), IA3Config(target_modules=["v_proj"], feedforward_modules=[]))
        two_adapters = get_model()
        two_adapters.add_adapter("other", LoraConfig(r=2, target_modules=["v_proj"]))
        for model in (ia3, two_adapters):
            with pytest.raises(ValueError, match="must have one adapter, and it must be LoRA"):
                select_target_modules(model, get_batches())
        with pytest.raises(ValueError, match="is not trainable"):
            select_target_modules(get_model().requires_grad_(False), get_batches())
        for init in (False, "pissa"):
            with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj does not start from 0"):
                select_target_modules(get_model(init_lora_weights=init), get_batches())
        attention = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
        with pytest.raises(ValueError, match="0 is adapted as `nn"):
            select_target_modules(get_peft_model(attention, LoraConfig(target_modules=["0", "1"])), [])

    @pytest.mark.parametrize(
        "budget, reason", [(0.0, "between 0 and 1"), (1.0, "between 0 and 1"), (0.01, "raise it")]
    )
    def test_budget_out_of_range(self, budget, reason):
        with pytest.raises(ValueError, match=f"`budget` is {budget}.*{reason}"):
            select_target_modules(get_model(), get_batches(), budget)

    def test_no_evidence(self):
        model = get_model()
        with pytest.raises(ValueError, match="is 0, so there is nothing to select by"):
            select_target_modules(model, [])
        with torch.no_grad():
            model.base_model.model.lm_head.weight.fill_(float("nan"))
        with pytest.raises(ValueError, match="is nan, so there is nothing to select by"):
            select_target_modules(model, get_batches())
        assert all(parameter.grad is None for parameter in model.parameters())


class TestRelativeToBlocks:
    def test_each_block_has_a_mean_of_one(self):
        scores = {"layers.0.a": 1.0, "layers.0.b": 3.0, "layers.1.a": 10.0, "layers.1.b": 30.0}
        assert relative_to_blocks(scores) == {
            "layers.0.a": 0.5,
            "layers.0.b": 1.5,
            "layers.1.a": 0.5,
            "layers.1.b": 1.5,
        }

    def test_a_module_outside_counts_to_the_block_before_it(self):
        scores = {"embed": 1.0, "layers.0.a": 2.0, "layers.0.b": 3.0, "layers.1.a": 2.0, "head": 6.0}
        relative = {"embed": 0.5, "layers.0.a": 1.0, "layers.0.b": 1.5, "layers.1.a": 0.5, "head": 1.5}
        assert relative_to_blocks(scores) == relative

    def test_without_blocks_all_modules_are_compared(self):
        assert relative_to_blocks({"a": 1.0, "b": 3.0}) == {"a": 0.5, "b": 1.5}
        assert relative_to_blocks({"0": 1.0, "1": 3.0}) == {"0": 0.5, "1": 1.5}
        assert relative_to_blocks({"layers.0.a": 1.0, "layers.1.a": 3.0}) == {"layers.0.a": 0.5, "layers.1.a": 1.5}
        scores = {"layers.0.a": 1.0, "layers.1.a": 2.0, "head": 3.0}
        assert list(relative_to_blocks(scores).values()) == [0.5, 1.0, 1.5]

    def test_a_block_without_gradients(self):
        scores = {"layers.0.a": 0.0, "layers.0.b": 0.0, "layers.1.a": 1.0, "layers.1.b": 3.0}
        assert list(relative_to_blocks(scores).values()) == [0.0, 0.0, 0.5, 1.5]
