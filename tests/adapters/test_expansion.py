from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import adamw, batch, lora_bert, lora_gpt2, lora_mixtral, lora_zoo, train
from torch import nn

from weightlora.adapters import base_model_of, find_adapters
from weightlora.adapters.expansion import check_growth, clip_rank, expand_, grow_, next_ranks, ranks_for_budget
from weightlora.errors import ModelError

MAKERS = {
    "bert": lora_bert,
    "zoo": lora_zoo,
    "gpt2": lora_gpt2,
    "mixtral": lora_mixtral,
    "dora": lambda **lora: lora_bert(use_dora=True, **lora),
    "dora, zoo": lambda **lora: lora_zoo(use_dora=True, target_modules=["embed", "linear", "conv2", "conv3"], **lora),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def outputs(model: nn.Module) -> torch.Tensor:
    ids = torch.arange(16).reshape(2, 8) % 20
    model = model.eval()
    return model(ids) if type(base_model_of(model)).__name__ == "Zoo" else model(input_ids=ids).logits


def randomize(model: nn.Module) -> None:
    torch.manual_seed(0)
    for adapter in find_adapters(model):
        for parameter in adapter.parameters:
            nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("method", ["random", "qr"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("maker", MAKERS)
def test_growing_changes_the_outputs_by_rounding_only(maker, rslora, method):
    model = MAKERS[maker](use_rslora=rslora)
    randomize(model)
    expected = outputs(model)
    for adapter in find_adapters(model):
        scaling, rank = adapter.scaling, adapter.rank
        expand_(adapter, 2 * rank, method, None, generator())
        assert (adapter.rank, adapter.scaling) == (2 * rank, scaling)
        a, b = (adapter.to_blocks(i, factor) for i, factor in enumerate(adapter.factors))
        assert a.shape[1] == b.shape[2] == 2 * rank // adapter.rank_unit
        root = adapter.rank**0.5 if rslora else adapter.rank
        assert adapter.layer.lora_alpha["default"] / root == pytest.approx(scaling)
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["random", "qr"])
def test_growing_rounds_no_double_precision(method):
    model = lora_bert().double()
    randomize(model)
    expected = outputs(model)
    for adapter in find_adapters(model):
        expand_(adapter, 2 * adapter.rank, method, None, generator())
    torch.testing.assert_close(outputs(model), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 10_000), st.sampled_from(["random", "qr"]))
def test_any_rank_keeps_the_product_and_qr_rows_are_orthogonal(rank, more, seed, method):
    model = lora_bert(layers=1, r=rank, target_modules=["query"])
    adapter = find_adapters(model)[0]
    torch.manual_seed(seed)
    for parameter in adapter.parameters:
        nn.init.normal_(parameter)
    before = adapter.layer.get_delta_weight("default").detach()
    expand_(adapter, rank + more, method, None, generator())
    torch.testing.assert_close(adapter.layer.get_delta_weight("default"), before, rtol=1e-4, atol=1e-4)
    a = adapter.factors[0].detach()
    if method == "qr" and more:
        torch.testing.assert_close(a[:rank] @ a[:rank].T, torch.eye(rank), rtol=0, atol=1e-5)
        torch.testing.assert_close(a[rank:] @ a[:rank].T, torch.zeros(more, rank), rtol=0, atol=1e-5)


@pytest.mark.parametrize("maker", MAKERS)
def test_restart_starts_afresh(maker):
    model = MAKERS[maker]()
    base = outputs(model)  # B = 0
    randomize(model)
    assert not torch.allclose(outputs(model), base)
    for adapter in find_adapters(model):
        expand_(adapter, 2 * adapter.rank, "restart", None, generator())
        a, b = (adapter.to_blocks(i, factor) for i, factor in enumerate(adapter.factors))
        assert a.shape[1] == b.shape[2] == adapter.rank // adapter.rank_unit
    torch.testing.assert_close(outputs(model), base)


@pytest.mark.parametrize("method", ["random", "qr", "restart"])
def test_new_directions_move_at_the_next_step(method):
    model = lora_bert()
    optimizer = adamw(model)
    train(model, optimizer, steps=3)
    for adapter in find_adapters(model):
        expand_(adapter, 7, method, optimizer, generator())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    before = [adapter.factors[1].detach().clone() for adapter in find_adapters(model)]
    train(model, optimizer, steps=1, start=3)
    for adapter, old in zip(find_adapters(model), before, strict=True):
        moved = (adapter.factors[1] - old)[:, 4:].abs()
        assert (old[:, 4:] == 0).all() and moved.min() > 0, adapter.name


def test_moments_are_padded_with_zeros_by_random_and_reset_by_qr():
    for method in ("random", "qr", "restart"):
        model = lora_bert()
        optimizer = adamw(model)
        train(model, optimizer, steps=3)
        adapter = find_adapters(model)[0]
        old = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in adapter.factors]
        expand_(adapter, 6, method, optimizer, generator())
        if method != "random":
            assert all(p not in optimizer.state for p in adapter.factors)
            continue
        for key in ("exp_avg", "exp_avg_sq"):
            a, b = (optimizer.state[p][key] for p in adapter.factors)
            assert torch.equal(a[:4], old[0][key]) and (a[4:] == 0).all() and a.shape == (6, 16)
            assert torch.equal(b[:, :4], old[1][key]) and (b[:, 4:] == 0).all() and b.shape == (16, 6)
        assert optimizer.state[adapter.factors[0]]["step"] == old[0]["step"] == 3


def test_padded_moments_of_every_layer_have_the_shapes_of_their_factors():
    model = lora_zoo()
    optimizer = adamw(model)
    model(torch.arange(16).reshape(2, 8)).sum().backward()
    optimizer.step()
    for adapter in find_adapters(model):
        old = [optimizer.state[factor]["exp_avg"].abs().sum() for factor in adapter.factors]
        expand_(adapter, 2 * adapter.rank, "random", optimizer, generator())
        new = [optimizer.state[factor]["exp_avg"] for factor in adapter.factors]
        assert [moment.shape for moment in new] == [factor.shape for factor in adapter.factors]
        torch.testing.assert_close(torch.stack([moment.abs().sum() for moment in new]), torch.stack(old))


def test_padded_moments_of_experts_lie_where_their_factors_do():
    model = lora_mixtral()
    adapter = next(adapter for adapter in find_adapters(model) if adapter.kind == "parameter")
    optimizer = adamw(model)
    for parameter in adapter.factors:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in adapter.factors:
        optimizer.state[parameter]["exp_avg"].copy_(parameter)
    nn.init.normal_(adapter.factors[1])
    optimizer.state[adapter.factors[1]]["exp_avg"].copy_(adapter.factors[1])
    expand_(adapter, 5, "random", optimizer, generator())
    a, b = adapter.factors
    assert torch.equal(optimizer.state[b]["exp_avg"], b)
    kept = optimizer.state[a]["exp_avg"] != 0
    assert torch.equal(optimizer.state[a]["exp_avg"][kept], a[kept]) and kept.sum() == a.numel() * 2 // 5


@pytest.mark.parametrize(
    "spread", [{}, {"rank_pattern": {"query": 2, "value": 8}}, {"lora_bias": True}, {"use_dora": True}]
)
@pytest.mark.parametrize("keep", [1, 3, 6])
def test_the_freed_budget_is_spent_and_never_exceeded(keep, spread):
    model = lora_bert(r=2, **spread)
    adapters = find_adapters(model)
    budget = sum(adapter.size for adapter in adapters)
    kept = adapters[:keep]
    for adapter, rank in zip(kept, ranks_for_budget(kept, budget), strict=True):
        expand_(adapter, rank, "random", None, generator())
    spent = sum(adapter.size for adapter in kept)
    assert spent <= budget
    largest = sum(sum(p.numel() for p in adapter.factors) // adapter.rank for adapter in kept)
    capped = any(adapter.rank == adapter.max_rank for adapter in kept)
    assert capped or spent + largest * max(a.rank for a in kept) / min(a.rank for a in kept) > budget


def test_ranks_respect_groups_and_what_a_layer_can_use():
    adapters = {adapter.name: adapter for adapter in find_adapters(lora_zoo())}
    assert clip_rank(adapters["conv1"], 7) == 6
    assert clip_rank(adapters["conv3"], 99) == 4
    assert clip_rank(adapters["linear"], 1) == 2
    with pytest.raises(ValueError, match=r"rank 2 of adapter 'conv1' cannot become 3: give a multiple of 2"):
        expand_(adapters["conv1"], 3, "random", None, generator())
    with pytest.raises(ValueError, match=r"rank 2 of adapter 'linear' cannot become 1: give a multiple of 1"):
        expand_(adapters["linear"], 1, "random", None, generator())


def test_a_target_below_a_rank_and_an_engine_that_cuts_parameters_up_are_refused():
    adapters = find_adapters(lora_bert(rank_pattern={"query": 6}))
    for target in (6, 7, "budget"):
        check_growth(adapters, target)
    with pytest.raises(ModelError, match="expand_rank=5 is below the adapters' rank of 6: raise it, or drop expand"):
        check_growth(adapters, 5)
    with pytest.raises(ModelError, match="cannot grow what FSDP or DeepSpeed has sharded: set expand='none'"):
        check_growth(adapters, 8, can_grow=False)
    with pytest.raises(ModelError, match=r"'a' is of a kind whose rank cannot grow \(BdLoraLinear\): set expand"):
        check_growth([SimpleNamespace(name="a", variant="BdLoraLinear", rank=4)], "budget")


def test_each_round_multiplies_the_rank_by_the_same_ratio():
    adapters = find_adapters(lora_bert(r=2))
    start = {adapter.name: adapter.rank for adapter in adapters}
    for share, rank in ((0.0, 2), (0.5, 4), (1.0, 8)):
        assert next_ranks(adapters, 8, start, share, 0) == [rank] * 12
    assert next_ranks(adapters, 40, start, 1.0, 0) == [16] * 12, "what a layer can use"
    total = sum(adapter.size for adapter in adapters)
    assert next_ranks(adapters[:3], "budget", start, 1.0, total) == ranks_for_budget(adapters[:3], total) == [8] * 3


def test_adapters_grow_from_one_seed():
    grown = {}
    for seed in (3, 3, 4):
        model = lora_bert(r=2)
        adapters = find_adapters(model)
        optimizer = adamw(model)
        grow_(adapters[:3], [8, 4, 8], "random", optimizer, seed)
        assert [adapter.rank for adapter in adapters] == [8, 4, 8] + [2] * 9
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters() if p.requires_grad}
        fresh = [adapter.factors[0][2:].detach() for adapter in adapters[:3]]
        assert not torch.equal(fresh[0], fresh[2]), "one generator for all"
        assert seed not in grown or all(map(torch.equal, fresh, grown[seed]))
        grown[seed] = fresh
    assert not torch.equal(grown[3][0], grown[4][0])


def test_fresh_rows_are_drawn_as_peft_draws_them():
    """Kaiming-uniform with a = sqrt 5: between -1 / sqrt(in) and 1 / sqrt(in). N(0, 1) on an embedding."""
    adapters = {adapter.name: adapter for adapter in find_adapters(lora_zoo())}
    fan_in = {"linear": 12, "conv1": 12 * 3, "conv2": 8 * 3 * 3}
    for name, inputs in fan_in.items():
        expand_(adapters[name], 8, "random", None, generator())
        fresh = adapters[name].to_blocks(0, adapters[name].factors[0].detach())[:, 2 // adapters[name].rank_unit :]
        assert 0.9 < fresh.max() * inputs**0.5 <= 1 and -1 <= fresh.min() * inputs**0.5 < -0.9, name
        assert abs(fresh.mean()) * inputs**0.5 < 0.15
    expand_(adapters["embed"], 12, "random", None, generator())
    fresh = adapters["embed"].factors[1].detach()[:, 2:]
    assert fresh.std() == pytest.approx(1, abs=0.15) and fresh.abs().max() > 2


def test_restart_puts_doras_magnitude_back_in_the_optimizer_too():
    model = lora_bert(use_dora=True)
    optimizer = adamw(model)
    train(model, optimizer, steps=2)
    adapter = find_adapters(model)[0]
    old = adapter.magnitude
    expand_(adapter, 6, "restart", optimizer, generator())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    assert adapter.magnitude is not old and id(old) not in held and adapter.magnitude not in optimizer.state
    torch.testing.assert_close(adapter.magnitude.detach(), adapter.layer.base_layer.weight.detach().norm(dim=1))


def test_frozen_factors_stay_frozen():
    model = lora_bert()
    adapter = find_adapters(model)[0]
    adapter.factors[0].requires_grad_(False)
    expand_(adapter, 6, "qr", None, generator())
    assert [factor.requires_grad for factor in adapter.factors] == [False, True]
    assert model(**batch()).loss.isfinite()
