"""Predicted peaks are those of PEFT models that have only the chosen adapters."""

import pytest
import torch
import transformers as t
from models import adamw, batch, tiny_bert, tiny_llama
from peft import LoraConfig, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.adapters.surgery import disconnect_, free_inputs_
from weightlora.costs import best_within, measure
from weightlora.errors import ModelError
from weightlora.measure import model_bytes, optimizer_state_bytes, peak_allocated_bytes

BIG = batch(size=64)


def plain(names: list[str], **settings):
    lora = LoraConfig(**{"r": 4, "target_modules": names, "task_type": "SEQ_CLS"} | settings)
    base = tiny_bert(4)
    if lora.modules_to_save:  # large beside what a small batch keeps
        base.resize_token_embeddings(20_000)
    return get_peft_model(base, lora).train()


def all_modules() -> list[str]:
    return [name for name, m in tiny_bert(4).named_modules() if isinstance(m, torch.nn.Linear) and "encoder" in name]


def peak_of(model, inputs=BIG, passes: int = 1) -> int:
    optimizer = adamw(model)

    def step() -> None:
        for _ in range(passes):
            model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    peak = peak_allocated_bytes(step, torch.device("cpu"))
    return model_bytes(model) + optimizer_state_bytes(optimizer) + peak


@pytest.fixture(scope="module")
def costs():
    model = plain(all_modules())
    return measure("memory", model, find_adapters(model), lambda: model(**BIG).loss)


def test_all_adapters(costs):
    assert (
        costs.predict([True] * 24)
        == pytest.approx(costs.whole)
        == pytest.approx(peak_of(plain(all_modules())), rel=0.05)
    )


@pytest.mark.parametrize("share", [0.5, 0.65, 0.8])
def test_what_was_asked_for_is_predicted_and_kept(costs, share: float):
    score = torch.rand(24, generator=torch.Generator().manual_seed(1))
    mask = best_within(costs, score, share * costs.whole, None)
    assert mask is not None and 0 < int(mask.sum()) < 24
    predicted = costs.predict(mask)
    names = [name for name, kept in zip(all_modules(), mask, strict=True) if kept]
    assert 0.8 * share * costs.whole < predicted <= share * costs.whole
    assert peak_of(plain(names)) == pytest.approx(predicted, rel=0.1)


EMBEDDINGS = {"modules_to_save": ["word_embeddings", "classifier"]}
MIDDLE = {"modules_to_save": ["layer.1.output.LayerNorm", "classifier"]}
"""What trains in full in the second of four blocks: backward goes down to it with any adapters."""


@pytest.mark.parametrize(
    ("size", "settings"),
    [(2, {"r": 32}), (64, {"r": 32}), (2, EMBEDDINGS), (200, EMBEDDINGS)],
    ids=["rank", "rank, large batch", "the update is the peak", "embeddings, large batch"],
)
def test_gradients_of_an_earlier_pass_and_the_update_are_counted(size: int, settings):
    inputs = batch(size=size)
    model = plain(all_modules(), **settings)
    costs = measure("memory", model, find_adapters(model), lambda: model(**inputs).loss)
    assert all(parameter.grad is None for parameter in model.parameters())
    for mask in ([index % 2 == 0 for index in range(24)], [True] * 24):
        names = [name for name, kept in zip(all_modules(), mask, strict=True) if kept]
        accumulated = peak_of(plain(names, **settings), inputs, passes=2)
        assert accumulated == pytest.approx(costs.predict(mask), rel=0.03)
        assert peak_of(plain(names, **settings), inputs) <= 1.03 * costs.predict(mask)
    assert costs.predict([True] * 24) == pytest.approx(costs.whole)


def test_down_to_what_trains_in_full_the_depth_costs_nothing():
    model, inputs = plain(all_modules(), **MIDDLE), batch(size=64)
    costs = measure("memory", model, find_adapters(model), lambda: model(**inputs).loss)
    for lowest in (0, 6, 12, 18):
        mask = [index >= lowest for index in range(24)]
        names = [name for name, kept in zip(all_modules(), mask, strict=True) if kept]
        assert peak_of(plain(names, **MIDDLE), inputs, passes=2) == pytest.approx(costs.predict(mask), rel=0.03)


def test_frozen_factors_have_no_gradient_and_no_state():
    """LoRA-FA trains B alone."""

    def half(names: list[str]):
        model = plain(names, r=32)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "lora_A" not in name)
        return model

    model, inputs = half(all_modules()), batch(size=2)
    costs = measure("memory", model, find_adapters(model), lambda: model(**inputs).loss)
    for kept in (2, 24):
        names = all_modules()[-kept:]
        predicted = costs.predict([name in names for name in all_modules()])
        assert peak_of(half(names), inputs, passes=2) == pytest.approx(predicted, rel=0.03)
    assert predicted == pytest.approx(costs.whole)


def test_recomputed_activations_of_one_block_are_at_the_peak():
    def recomputing(names: list[str]):
        model = plain(names)
        model.get_base_model().gradient_checkpointing_enable()
        free_inputs_(model)
        return model

    model = recomputing(all_modules())
    costs = measure("memory", model, find_adapters(model), lambda: model(**BIG).loss)
    for lowest in (0, 2, 3):
        mask = [int(name.split(".")[3]) >= lowest for name in all_modules()]
        names = [name for name, kept in zip(all_modules(), mask, strict=True) if kept]
        assert peak_of(recomputing(names), passes=2) == pytest.approx(costs.predict(mask), rel=0.1)


def test_what_adapters_keep_while_one_block_recomputes_is_not_spread_over_all():
    """Adapters in float32 on layers in bfloat16 keep much, and budgets pay for the fullest block."""

    def recomputing(names: list[str]):
        model = recomputing_llama(names, torch.bfloat16)
        model.enable_input_require_grads()
        return model

    every = [n for n, m in tiny_llama(layers=6).named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n]
    model = recomputing(every)
    costs = measure("memory", model, find_adapters(model), lambda: loss_of(model))
    assert costs.passing and max(costs.blocks) >= 5
    assert costs.predict([True] * len(every)) == pytest.approx(costs.whole)
    least = min(costs.predict([i == j for i in range(len(every))]) for j in range(len(every)))
    score = torch.arange(1.0, len(every) + 1)
    for part in (0.2, 0.5):
        mask = best_within(costs, score, least + part * (costs.whole - least), None)
        names = [name for name, kept in zip(every, mask, strict=True) if kept]
        assert 1 < len(names) < len(every)
        assert step_peak(recomputing(names)) <= 1.08 * costs.predict(mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kinds", [("down_proj",), ("q_proj", "v_proj", "lm_head"), ("down_proj", "lm_head")])
def test_below_the_highest_block_a_whole_block_recomputes(kinds, dtype):
    """What comes and goes in a block is not there for the output layer alone."""
    every = [name for name, _ in tiny_llama(layers=6).named_modules() if name.endswith(kinds)]
    model = recomputing_llama(every, dtype)
    free_inputs_(model)
    costs = measure("memory", model, find_adapters(model), lambda: loss_of(model))
    for lowest in (5, 4, 3, 0):
        names = [name for name in every if "layers" in name and int(name.split(".")[2]) >= lowest]
        model = recomputing_llama(names, dtype)
        free_inputs_(model)
        predicted = costs.predict([name in names for name in every])
        assert 0.75 < step_peak(model) / predicted < 1.1


LONG = {name: value for name, value in batch(size=64).items() if name != "labels"}


def recomputing_llama(names: list[str], dtype: torch.dtype):
    base = tiny_llama(layers=6).to(dtype)
    base.gradient_checkpointing_enable()
    return get_peft_model(base, LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM")).train()


def loss_of(model) -> torch.Tensor:
    return model(**LONG, labels=LONG["input_ids"]).loss


def step_peak(model) -> int:
    optimizer = adamw(model)

    def step() -> None:
        loss_of(model).backward()

    step()
    optimizer.step()
    return model_bytes(model) + 3 * adapter_bytes(model) + peak_allocated_bytes(step, torch.device("cpu"))


def adapter_bytes(model) -> int:
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


def test_two_towers_are_refused():
    """The price of depth is that of a chain: with the lowest adapter alone, one tower keeps nothing."""
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    text = {**tower, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2}
    image = {**tower, "image_size": 16, "patch_size": 4}
    model = get_peft_model(
        t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=image, projection_dim=16)),
        LoraConfig(r=2, target_modules="all-linear"),
    ).train()
    ids = torch.arange(128).reshape(8, 16) % 46 + 4
    inputs = {"input_ids": ids, "pixel_values": torch.randn(8, 3, 16, 16), "return_loss": True}
    with pytest.raises(ModelError, match=r"^CLIPModel has parts that do not run one after the other"):
        measure("memory", model, find_adapters(model), lambda: model(**inputs).loss)


def test_another_active_adapter_stays_where_one_is_dropped():
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.1)
    model = get_peft_model(tiny_llama(layers=4), lora).train()
    model.add_adapter("style", lora)
    model.base_model.set_adapter(["default", "style"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("default" in name)
    adapters, inputs = find_adapters(model, "default"), dict.fromkeys(("input_ids", "labels"), BIG["input_ids"])
    costs = measure("memory", model, adapters, lambda: model(**inputs).loss)
    assert all(adapter.layer.active_adapters == ["default", "style"] for adapter in adapters)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "style" in name)
    disconnect_(model, adapters[1:])
    lowest = [adapter is adapters[0] for adapter in adapters]
    assert costs.predict(lowest) == pytest.approx(peak_of(model, inputs), rel=0.1)
