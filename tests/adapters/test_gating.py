"""A gated model computes `W x + omega s B A x`, on every kind of layer, and the gates are nobody else's business."""

import pytest
import torch
from models import adamw, batch, lora_bert, lora_gpt2, lora_mixtral, lora_zoo
from operations import Operations
from peft import LoraConfig
from torch import nn
from torch._subclasses import FakeTensorMode

from weightlora.adapters import find_adapters, gating
from weightlora.adapters.gating import Gate, attach_gate, detach_gate, set_gates_, take_gradients


def ids(size: int = 4) -> torch.Tensor:
    return torch.randint(0, 20, (size, 8), generator=torch.Generator().manual_seed(0))


KINDS = {
    "bert": (lora_bert, lambda model: model(input_ids=ids()).logits),
    "bert with lora_bias": (lambda: lora_bert(lora_bias=True), lambda model: model(input_ids=ids()).logits),
    "embedding, linear, convolutions": (lora_zoo, lambda model: model(ids())),
    "convolutions with lora_bias": (
        lambda: lora_zoo(lora_bias=True, target_modules=["linear", "conv1", "conv2", "conv3"]),
        lambda model: model(ids()),
    ),
    "GPT-2's Conv1D": (lora_gpt2, lambda model: model(input_ids=ids()).logits),
    "Mixtral's experts": (lora_mixtral, lambda model: model(input_ids=ids()).logits),
}


def randomize(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for adapter in find_adapters(model):
        for parameter in adapter.parameters:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_scales_its_adapter_and_gets_the_exact_gradient(kind):
    """Against PEFT's own `scaling`, which multiplies the whole update: same output, same derivative."""
    make, run = KINDS[kind]
    model = make().double().eval()
    randomize(model)
    model.double()
    adapters = find_adapters(model)
    values = torch.linspace(-0.5, 1.5, len(adapters), dtype=torch.float64)
    values[1] = 1e-9
    scalings = [adapter.scaling for adapter in adapters]

    for adapter, scaling, value in zip(adapters, scalings, values.tolist(), strict=True):
        adapter.layer.scaling["default"] = scaling * value
    expected = run(model)
    expected.square().sum().backward()
    # B and its bias enter only as omega s (B A x + b), so <dL/dB, B> + <dL/db, b> = omega dL/domega.
    slopes = torch.stack([sum((p.grad * p).sum() for p in adapter.parameters[1:]) for adapter in adapters]).detach()
    for adapter, scaling in zip(adapters, scalings, strict=True):
        adapter.layer.scaling["default"] = scaling

    gates = [attach_gate(adapter) for adapter in adapters]
    slopes /= values
    values[1] = 0.0  # so near to 1e-9 that nothing else changes
    set_gates_(gates, values)
    output = run(model)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    output.square().sum().backward()
    gradients = take_gradients(gates)
    torch.testing.assert_close(gradients, slopes, rtol=1e-3, atol=1e-6)
    assert gradients.abs().min() > 0, "a zeroed gate must get a gradient, or its adapter could never come back"
    assert take_gradients(gates) is None, "taking the gradients clears them"

    for gate in gates:
        detach_gate(gate)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    ungated = run(make_same(model, make, run))
    torch.testing.assert_close(run(model), ungated)


def make_same(model, make, run):
    fresh = make().double().eval()
    fresh.load_state_dict(model.state_dict())
    return fresh


@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_no_parameters_and_in_no_state_dict(kind):
    model = KINDS[kind][0]()
    keys, parameters = list(model.state_dict()), [id(parameter) for parameter in model.parameters()]
    gates = [attach_gate(adapter) for adapter in find_adapters(model)]
    KINDS[kind][1](model)
    assert list(model.state_dict()) == keys
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert not {id(gate.omega) for gate in gates} & set(parameters)


def test_a_gate_of_one_changes_no_bit():
    model = lora_bert().eval()
    randomize(model)
    expected = model(**batch()).logits
    for adapter in find_adapters(model):
        attach_gate(adapter)
    assert torch.equal(model(**batch()).logits, expected)


def test_gates_keep_only_rank_r_activations_for_backward():
    """By storage size: beside plain LoRA, a gate adds one `tokens x r` tensor an adapter, none as wide as out."""

    def saved(model) -> dict[int, int]:
        sizes: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(**batch()).loss
        assert output is not None
        return sizes

    model = lora_bert(r=3)
    plain = sum(saved(model).values())
    gates = [attach_gate(adapter) for adapter in find_adapters(model)]
    tokens = 8 * 10
    assert sum(saved(model).values()) - plain <= len(gates) * (tokens * 3 + 1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = lora_bert()
        randomize(model)
        gates = [attach_gate(adapter) for adapter in find_adapters(model)]
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.train()
        model(**batch()).loss.backward()
        gradients.append(take_gradients(gates))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)
    assert gradients[0].abs().min() > 0


def test_bf16_models_have_fp32_gates():
    model = lora_bert().to(torch.bfloat16)
    randomize(model)
    model.to(torch.bfloat16)
    gates = [attach_gate(adapter) for adapter in find_adapters(model)]
    output = model(**batch())
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    assert {gate.omega.dtype for gate in gates} == {torch.float32}
    assert all(gate.omega.grad.dtype == torch.float32 for gate in gates)
    assert take_gradients(gates).abs().min() > 0


def test_autocast_gradients_agree_with_fp32():
    gradients = []
    for enabled in (False, True):
        model = lora_bert()
        randomize(model)
        gates = [attach_gate(adapter) for adapter in find_adapters(model)]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(**batch()).loss
        loss.backward()
        gradients.append(take_gradients(gates))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.2, atol=2e-3)


def test_a_gradient_beyond_float16_is_finite():
    """Else a step that the optimizer makes looks like one that a GradScaler skipped, and does not count."""
    layer = nn.Linear(4, 4, bias=False, dtype=torch.float16)
    nn.init.constant_(layer.weight, 0.25)
    omega = torch.tensor(0.5, requires_grad=True)
    found = gating._gate_activation(omega, layer, (), layer(torch.ones(100, 4, dtype=torch.float16)))
    assert found.dtype is torch.float16 and (found == 0.5).all()
    found.backward(torch.full_like(found, 1000.0))
    assert omega.grad == 400_000


def test_an_inactive_or_disabled_adapter_is_not_gated():
    model = lora_bert().eval()
    model.add_adapter("other", LoraConfig(target_modules=["query", "intermediate.dense"]))
    randomize(model)
    model.set_adapter("other")
    other = model(**batch()).logits
    with model.disable_adapter():
        base = model(**batch()).logits
    model.set_adapter("default")
    gates = [attach_gate(adapter) for adapter in find_adapters(model, "default")]
    set_gates_(gates, torch.full((len(gates),), 0.3))
    with model.disable_adapter():
        assert torch.equal(model(**batch()).logits, base)
    model.set_adapter("other")
    assert torch.equal(model(**batch()).logits, other)
    model(**batch()).loss.backward()
    assert take_gradients(gates) is None


def test_weight_gates_leave_the_layer_whole_when_its_forward_fails():
    model = lora_zoo()
    keys = list(model.state_dict())
    for adapter in find_adapters(model):
        attach_gate(adapter)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((2, 8), 99))
    assert list(model.state_dict()) == keys
    assert not any("default" in holder.__dict__ for holder in [model.base_model.model.embed.lora_embedding_B])
    adamw(model)
    assert model(ids()).isfinite().all()


def test_the_host_waits_for_an_accelerator_once_a_step():
    """On fake tensors, to read the gradients; new values are sent without waiting."""
    with FakeTensorMode():
        gates = [Gate(torch.ones((), device="cuda", requires_grad=True), ()) for _ in range(3)]
        gates[0].omega.grad = torch.zeros((), device="cuda")
        with Operations() as operations:
            gradients = take_gradients(gates)
            set_gates_(gates, gradients)
    assert operations.waited_for == [("cuda", "cpu")] and operations.made["_foreach_copy_"] == 1
