"""Other draws of A in the same backward passes: what they add up is the gradient that B would have with them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from models import batch, lora_bert, lora_gpt2, lora_mixtral, lora_zoo
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from weightlora.adapters import find_adapters
from weightlora.gradients import draws_for, draws_of, l1_norms, projected, signs_for


def passes(model, adapters, rows: int, number: int = 2) -> dict:
    """Sums over some batches; the gradients of B are added up beside them."""
    model.train()
    with projected(adapters, rows) as sums:
        for step in range(number):
            torch.manual_seed(step)  # dropout
            model(**batch(step)).loss.backward()
    return sums


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"use_rslora": True, "lora_dropout": 0.3}])
@pytest.mark.parametrize("make", [lora_bert, lora_gpt2])
def test_each_draw_gives_the_gradient_of_b_with_that_a(make, lora):
    model = make(**lora)
    adapters = find_adapters(model)
    rank, draws = adapters[0].rank, 3
    sums = passes(model, adapters, rank * draws)
    assert list(sums) == adapters
    own = [adapter.factors[0].detach().clone() for adapter in adapters]
    for draw in range(draws):
        model.zero_grad()
        for adapter, a in zip(adapters, own, strict=True):
            adapter.factors[0].data = draws_of(a, signs_for(draws, a.shape[1]))[draw * rank : (draw + 1) * rank]
        passes(model, adapters, 1)
        for adapter, total in sums.items():
            drawn = total[:, draw * rank : (draw + 1) * rank]
            assert float(drawn.abs().max()) > 0
            torch.testing.assert_close(drawn, adapter.factors[1].grad, rtol=1e-4, atol=1e-7)


def test_draws_differ_where_all_inputs_are_alike():
    """Shifts of A alone would give the same projection of such inputs."""
    a = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    draws = draws_of(a, signs_for(8, 64))
    assert torch.equal(draws[:4], a)
    assert torch.equal(draws[4:8].abs(), a.abs().roll(8, dims=1))
    assert float(draws.sum(1).view(8, 4).std(dim=0).min()) > 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_count_once(reentrant):
    plain = passes(model := lora_bert(), find_adapters(model), 8)
    model = lora_bert()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again = passes(model, find_adapters(model), 8)
    for one, other in zip(plain.values(), again.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_module_that_runs_twice_counts_twice():
    model = lora_bert()
    encoder = model.base_model.model.bert.encoder
    encoder.layer[1] = encoder.layer[0]
    for adapter, total in passes(model, adapters := find_adapters(model), 8).items():
        torch.testing.assert_close(total[:, :4], adapter.factors[1].grad, rtol=1e-4, atol=1e-7)
    assert len(adapters) == 6


def test_half_precision_sums_in_single():
    model = lora_bert()
    with torch.autocast("cpu", torch.bfloat16):
        sums = passes(model, find_adapters(model), 8, number=1)
    for adapter, total in sums.items():
        assert total.dtype == torch.float32
        difference = (total[:, :4] - adapter.factors[1].grad).norm() / total[:, :4].norm()
        assert float(difference) < 0.02


def test_a_default_dtype_of_the_user_changes_no_sum():
    found = []
    for default in (torch.float32, torch.bfloat16):
        adapters = find_adapters(model := lora_bert())
        torch.set_default_dtype(default)
        try:
            with projected(adapters, 8) as sums:
                model(**batch()).loss.backward()
            found.append(l1_norms(adapters, sums, lambda tensor: tensor))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(*found) and bool(found[0].all())


def one_layer(**lora) -> nn.Module:
    torch.manual_seed(0)
    return get_peft_model(nn.Sequential(nn.Linear(16, 8)), LoraConfig(r=2, target_modules=["0"], **lora))


def norms(model, loss) -> tuple[float, float]:
    """The L1 norm over draws of the only adapter, and that of the gradient of its B."""
    (adapter,) = find_adapters(model)
    with projected([adapter], 8) as sums:
        loss(model).backward()
    return float(l1_norms([adapter], sums, lambda tensor: tensor)), float(adapter.factors[1].grad.abs().sum())


def test_the_norm_is_that_of_the_mean_gradient_where_no_ddp_has_averaged_it():
    """Two processes, here threads, whose model is not in DDP yet."""
    losses = [lambda model, x=x: model(x).square().sum() for x in torch.randn(2, 4, 16)]
    turn, given = threading.Barrier(2, timeout=60), [torch.empty(0)] * 2
    first, second, third = (one_layer() for _ in range(3))  # not in the threads, which share the random numbers

    def run(model, loss, average=lambda tensor: tensor) -> Tensor:
        with projected(adapters := find_adapters(model), 8) as sums:
            loss(adapters[0].layer).backward()
        return l1_norms(adapters, sums, average)

    def process(rank: int, model) -> Tensor:
        def average(tensor: Tensor) -> Tensor:
            given[rank] = tensor
            turn.wait()
            mean = (given[0] + given[1]) / 2
            turn.wait()
            return mean

        return run(model, losses[rank], average)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(process, range(2), (first, second)))
    expected = run(third, lambda model: (losses[0](model) + losses[1](model)) / 2)
    for one in found:
        torch.testing.assert_close(one, expected)


def test_a_single_vector_is_an_input_too():
    drawn, own = norms(one_layer(), lambda model: model(torch.arange(16.0)).square().sum())
    assert 0 < drawn != own


def test_a_default_device_of_the_user_changes_no_draw():
    signs = signs_for(4, 16)
    with torch.device("meta"):
        assert torch.equal(signs_for(4, 16), signs)


def penalty(model) -> Tensor:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    return gradient.square().sum()


def test_where_the_hooks_do_not_see_the_whole_gradient_its_own_norm_counts():
    """In a penalty on the gradient, B enters the graph of the gradient as well."""
    drawn, own = norms(one_layer(), penalty)
    assert 0 < drawn == pytest.approx(own)


def test_a_hook_on_b_counts_in_all_draws():
    loss = lambda model: model(torch.ones(3, 16)).square().sum()  # noqa: E731
    plain, _ = norms(one_layer(), loss)
    model = one_layer()
    find_adapters(model)[0].layer.lora_B["default"].register_forward_hook(lambda _, __, output: output * 3)
    assert norms(model, loss)[0] == pytest.approx(3 * plain)


def test_an_a_that_was_not_drawn_has_no_other_draws():
    model = one_layer()
    model.peft_config["default"].init_lora_weights = "eva"
    (adapter,) = find_adapters(model)
    assert not adapter.drawn and draws_for(adapter, 64) == 1


def test_there_are_as_many_draws_as_make_the_rows():
    (adapter, *_) = find_adapters(lora_bert())  # rank 4, 16 inputs
    assert [draws_for(adapter, rows) for rows in (1, 4, 7, 8, 16, 64)] == [1, 1, 1, 2, 4, 4]


def test_other_layers_than_linear_ones_have_their_own_draw_only():
    adapters = {adapter.name: draws_for(adapter, 8) for adapter in find_adapters(lora_zoo())}
    assert adapters == {"embed": 1, "linear": 4, "conv1": 1, "conv2": 1, "conv3": 1}
    sums = passes(model := lora_bert(), find_adapters(model), 4)
    assert sums == {}


def test_experts_call_no_module_of_theirs_so_they_have_their_own_draw_only():
    model = lora_mixtral()
    ids = torch.arange(12).view(2, 6)
    with projected(adapters := find_adapters(model), 8) as sums:
        model(input_ids=ids, labels=ids).loss.backward()
    experts = [adapter for adapter in adapters if adapter.kind == "parameter"]
    assert experts and not sums.keys() & set(experts)
    assert sums and all(bool(total.any()) for total in sums.values())


def test_nothing_stays_on_the_model_even_after_an_error():
    model = lora_bert()
    with pytest.raises(ValueError, match="inputs"), projected(find_adapters(model), 8):
        model(labels=batch()["labels"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
