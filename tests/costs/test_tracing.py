"""What a forward pass shows: the order of the adapters, which of them share an input, and who keeps what."""

import torch
from models import batch, lora_bert

from weightlora.adapters import find_adapters
from weightlora.costs.tracing import trace, without
from weightlora.measure import saved_activation_bytes


def traced(**settings):
    model = lora_bert(**settings).train()
    adapters = find_adapters(model)
    return model, adapters, trace(model, adapters, lambda: model(**batch()).loss)


def test_adapters_on_one_input_are_a_group_and_the_last_to_run_comes_first():
    _, adapters, seen = traced()
    kinds = [adapter.name.removeprefix("bert.encoder.layer.") for adapter in adapters]
    assert dict(zip(kinds, seen.groups, strict=True)) == {
        "1.output.dense": 0,
        "1.intermediate.dense": 1,
        "1.attention.output.dense": 2,
        "1.attention.self.query": 3,
        "1.attention.self.key": 3,
        "1.attention.self.value": 3,
        "0.output.dense": 4,
        "0.intermediate.dense": 5,
        "0.attention.output.dense": 6,
        "0.attention.self.query": 7,
        "0.attention.self.key": 7,
        "0.attention.self.value": 7,
    }


def test_all_that_autograd_keeps_is_accounted_for():
    model, _, seen = traced()
    assert sum(seen.saved) + sum(seen.shared) + sum(seen.own) == saved_activation_bytes(model, batch())
    rows, tokens = batch()["input_ids"].shape
    assert seen.shared[3] == rows * tokens * 16 * 4  # the input of query, key and value
    assert min(seen.own) > 0


def test_a_group_keeps_what_it_keeps_with_the_others_away():
    model, adapters, seen = traced()
    for alone in (0, 5, 8, 11):
        with without(a for i, a in enumerate(adapters) if i != alone):
            measured = saved_activation_bytes(model, batch())
        group = seen.groups[alone]
        predicted = sum(seen.saved[: group + 1]) + seen.shared[group] + seen.own[alone]
        assert abs(predicted - measured) <= 0.1 * measured


def test_layers_without_their_adapter_compute_what_the_base_computes_and_come_back():
    model, adapters, _ = traced()
    with torch.no_grad():
        for adapter in adapters:
            adapter.factors[1].normal_()
        adapters[0].parameters[0].requires_grad_(False)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        whole = model(**batch()).logits
        with without(adapters):
            bare = model(**batch()).logits
            assert not any(p.requires_grad for a in adapters for p in a.parameters)
        assert torch.equal(whole, model(**batch()).logits)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
        with model.disable_adapter():
            assert torch.equal(bare, model(**batch()).logits)


def test_a_trace_keeps_no_tensor_and_notes_autocast():
    model, adapters, plain = traced()

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch()).loss

    cast = trace(model, adapters, loss)
    assert {given.autocast for given in plain.inputs} == {None}
    assert {given.autocast for given in cast.inputs} == {torch.bfloat16}
    assert not any(torch.is_tensor(value) for given in cast.inputs for value in given)
    assert {given.shape[:2] for given in cast.inputs} == {batch()["input_ids"].shape}
