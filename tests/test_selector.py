import copy
import gc
import json
import math
import weakref

import pytest
import torch
from models import adamw, batch, lora_bert, lora_mixtral, lora_zoo, train
from peft import LoraConfig, get_peft_model
from selections import start
from torch import Tensor, nn

from weightlora import WeightLora, WeightLoraConfig, restore
from weightlora.adapters import base_model_of, find_adapters
from weightlora.errors import ConfigError, TrainingError
from weightlora.state import write_state

STOIHT = {"selection": "stoiht", "omega_lr": 2.0}


# The algorithm


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6, bias=False) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Reference:
    """Algorithm 1 in plain tensors: explicit `W + omega s B A`, AdamW written out, a sort for the projection."""

    def __init__(self, model: nn.Module, scaling: float, lr: float, eta: float, keep: int) -> None:
        adapters = find_adapters(model)
        self.w = [a.layer.base_layer.weight.detach().clone() for a in adapters]
        self.ab = [[f.detach().clone().requires_grad_() for f in a.factors] for a in adapters]
        self.moments = [[(torch.zeros_like(f), torch.zeros_like(f)) for f in pair] for pair in self.ab]
        self.omega = torch.ones(len(adapters), requires_grad=True)
        self.scaling, self.lr, self.eta, self.keep, self.t = scaling, lr, eta, keep, 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        for w, (a, b), omega in zip(self.w, self.ab, self.omega, strict=True):
            x = (x @ (w + omega * self.scaling * b @ a).T).tanh()
        return (x - y).square().mean()

    def step(self, x: Tensor, y: Tensor) -> None:
        self.t += 1
        tensors = [f for pair in self.ab for f in pair]
        gradients = torch.autograd.grad(self.loss(x, y), [*tensors, self.omega])
        with torch.no_grad():
            for f, g, (m, v) in zip(tensors, gradients[:-1], [m for pair in self.moments for m in pair], strict=True):
                f.mul_(1 - self.lr * 0.01)
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                f -= self.lr * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)
            omega = self.omega - self.eta * gradients[-1]
            if gradients[-1].any():
                order = sorted(range(len(omega)), key=lambda i: (-float(omega[i]), i))
                omega[order[self.keep :]] = 0.0
            self.omega.copy_(omega)


def test_algorithm_1_step_by_step_against_an_independent_reference():
    torch.manual_seed(0)
    model = get_peft_model(Mlp(), LoraConfig(r=2, lora_alpha=6, target_modules=r"layers\.\d"))
    reference = Reference(model, scaling=3.0, lr=0.02, eta=100.0, keep=2)
    _, optimizer, selector = start(model, lr=0.02, keep=2, select_steps=10, selection="stoiht", omega_lr=100.0)
    for parameter_group in optimizer.param_groups:
        assert parameter_group["weight_decay"] == 0.01
    sets = []
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        x, y = (torch.randn(16, 6, generator=generator) for _ in range(2))
        adapters = find_adapters(model)
        loss = (model(x) - y).square().mean()
        assert loss.item() == pytest.approx(reference.loss(x, y).item(), rel=1e-5)
        loss.backward()
        optimizer.step()
        for adapter, pair in zip(adapters, [[*p] for p in reference.ab], strict=True):
            assert adapter.factors[0].grad.shape == pair[0].shape
        selector.step()
        reference.step(x, y)
        optimizer.zero_grad()
        torch.testing.assert_close(
            torch.tensor(list(selector.omega.values())), reference.omega.detach(), rtol=1e-4, atol=1e-5
        )
        for adapter, pair in zip(adapters, reference.ab, strict=True):
            if adapter.adapter_name in adapter.layer.scaling:  # not disconnected in this very step
                for factor, expected in zip(adapter.factors, pair, strict=True):
                    torch.testing.assert_close(factor.detach(), expected.detach(), rtol=1e-3, atol=1e-5)
        sets.append(tuple(i for i, omega in enumerate(reference.omega.tolist()) if omega))
    assert sets[0] == (0, 1, 2, 3), "while B = 0 nothing is projected"
    assert len(set(sets[1:])) > 1, "the case must hold an adapter that comes back"
    assert selector.phase == "train" and len(selector.kept) == 2
    gates = reference.omega[reference.omega != 0].tolist()
    assert [adapter.scaling for adapter in selector.adapters] == pytest.approx([3 * gate for gate in gates], rel=1e-4)


@pytest.mark.parametrize("selection", ["credit", "stoiht", "random"])
@pytest.mark.parametrize(("keep", "left"), [(1, 1), (5, 5), (12, 12), (0.25, 3), (0.01, 1)])
def test_exactly_k_survive(selection, keep, left):
    model, optimizer, selector = start(keep=keep, select_steps=4, selection=selection)
    train(model, optimizer, selector, steps=5)
    assert selector.phase == "train"
    assert len(selector.kept) == len(find_adapters(model)) == len(selector.adapters) == left
    assert selector.kept == [adapter.name for adapter in find_adapters(model)]
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for group in optimizer.param_groups for p in group["params"]
    }


def test_ties_give_exactly_k_and_the_lower_index():
    """Two adapters on copies of one layer, fed the same: equal gates to the last bit."""
    torch.manual_seed(0)

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.twins = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])
            for twin in self.twins[1:]:
                twin.load_state_dict(self.twins[0].state_dict())

        def forward(self, x):
            return sum(twin(x) for twin in self.twins)

    model = get_peft_model(Twins(), LoraConfig(r=2, target_modules=r"twins\.\d"))
    adapters = find_adapters(model)
    for adapter in adapters[1:]:
        adapter.factors[0].data.copy_(adapters[0].factors[0])
    adapters[0].factors[0].data.mul_(1.01)  # one differs, three tie
    _, optimizer, selector = start(model, keep=2, select_steps=3, **STOIHT)
    for _ in range(3):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert len(selector.kept) == 2
    assert selector.kept in (["twins.0", "twins.1"], ["twins.1", "twins.2"])


def test_thresholds_interval_and_warmup():
    model, optimizer, selector = start(keep=3, select_steps=9, warmup_steps=2, threshold_every=3, **STOIHT)
    train(model, optimizer, selector, steps=9)
    steps = [entry for entry in selector.history if "phase" in entry]
    assert [entry["phase"] for entry in steps] == ["warmup"] * 2 + ["select"] * 7
    assert [entry["active"] for entry in steps] == [12, 12, 12, 12, 3, 12, 12, 3, 12]
    assert steps[1]["omega"] == [1.0] * 12 and len(set(steps[1]["score"])) == 12
    assert len(selector.kept) == 3


def test_rounds_halve_and_the_last_reaches_k():
    for selection in ("credit", "stoiht", "random"):
        model, optimizer, selector = start(keep=3, select_steps=8, rounds=2, selection=selection)
        counts = []
        for step in range(8):
            train(model, optimizer, selector, start=step)
            counts.append(len(find_adapters(model)))
        assert counts == [12] * 3 + [6] * 4 + [3]
        assert [entry["step"] for entry in selector.history if "kept" in entry] == [4, 8]


def test_a_parameter_budget_is_never_exceeded():
    model = lora_bert()
    sizes = {adapter.name: adapter.size for adapter in find_adapters(model)}
    budget = 500
    for selection in ("credit", "stoiht", "random"):
        model, optimizer, selector = start(keep_parameters=budget, select_steps=4, selection=selection)
        train(model, optimizer, selector, steps=4)
        spent = sum(adapter.size for adapter in selector.adapters)
        assert spent <= budget
        assert spent + min(size for name, size in sizes.items() if name not in selector.kept) > budget


def test_with_credit_k_adapters_have_no_more_than_their_share_of_the_parameters():
    """Wide modules would win by their size: here they hold the most credit, and not all of them may stay."""
    for bound, wide in ((None, False), (10_000, True)):
        model, optimizer, selector = start(keep=3, keep_parameters=bound, select_steps=4)
        total, sizes = sum(selector.sizes.values()), selector.sizes
        train(model, optimizer, selector, steps=3)
        large = sorted(sizes, key=sizes.__getitem__)[-3:]
        selector._rule.score = torch.tensor([float(name in large) for name in sizes], dtype=torch.float64)
        selector.finish()
        kept = sum(sizes[name] for name in selector.kept)
        assert len(selector.kept) == 3 and (set(selector.kept) == set(large)) == wide
        assert (kept <= total * 3 // 12) != wide


@pytest.mark.parametrize("seed", [111, 0, 1])
def test_a_parameter_budget_in_rounds_leaves_an_adapter(seed):
    model, optimizer, selector = start(keep_parameters=150, rounds=2, select_steps=4, selection="random", seed=seed)
    train(model, optimizer, selector, steps=4)
    assert len(selector.adapters) == 1 and selector.adapters[0].size <= 150


def test_simplex_gates_lie_on_the_simplex():
    model, optimizer, selector = start(keep=3, select_steps=5, constraint="simplex", **STOIHT)
    train(model, optimizer, selector, steps=4)
    gates = list(selector.omega.values())
    assert sum(gates) == pytest.approx(1) and min(gates) >= 0
    train(model, optimizer, selector, steps=1, start=4)
    assert 1 <= len(selector.kept) <= 3 and len(find_adapters(model)) == len(selector.kept)
    assert sum(selector.omega.values()) == pytest.approx(1)


def test_magnitude_and_value_rank_negative_gates_differently():
    for rank_by in ("value", "magnitude"):
        model, optimizer, selector = start(keep=6, select_steps=3, rank_by=rank_by, **STOIHT)
        train(model, optimizer, selector, steps=2)
        selector._rule.score = torch.tensor([-5.0, 1, 2, 3, 4, 5, 6, -1, -2, -3, 0.5, 0.1], dtype=torch.float64)
        selector.finish()
        assert (selector.names[0] in selector.kept) == (rank_by == "magnitude")


def test_gates_follow_the_lr_scheduler_when_asked():
    moves = []
    for follow in (False, True):
        model = lora_bert()
        optimizer = adamw(model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25 if step == 1 else 1.0)
        config = WeightLoraConfig(keep=12, select_steps=9, omega_follows_lr=follow, **STOIHT)
        selector = WeightLora(model, optimizer, config)
        train(model, optimizer, selector, steps=1)
        scheduler.step()
        for group in optimizer.param_groups:
            group["lr"] = 0.0025 if follow else 0.01
        train(model, optimizer, selector, steps=1, start=1)
        moves.append(1 - torch.tensor(list(selector.omega.values())))
    torch.testing.assert_close(moves[1], moves[0] / 4)


def test_random_is_a_seeded_uniform_choice_and_can_be_made_at_once():
    chosen = []
    for seed in range(6):
        model, optimizer, selector = start(keep=3, select_steps=0, selection="random", seed=seed)
        assert selector.phase == "train" and len(find_adapters(model)) == 3
        train(model, optimizer, selector, steps=1)
        chosen.append(tuple(selector.kept))
        later = start(keep=3, select_steps=2, selection="random", seed=seed)
        train(*later, steps=2)
        assert tuple(later[2].kept) == chosen[-1]
    assert len(set(chosen)) > 3


def test_paper_settings_run():
    for plus in (False, True):
        model, optimizer, selector = start_paper(plus)
        train(model, optimizer, selector, steps=16)
        assert len(selector.kept) == 3
        assert set(selector.ranks.values()) == ({14} if plus else {4}) or plus


def start_paper(plus: bool):
    model = lora_bert()
    optimizer = adamw(model)
    return model, optimizer, WeightLora(model, optimizer, WeightLoraConfig.paper(plus, keep=3, select_steps=16))


# The surgery, through the controller


@pytest.mark.parametrize("selection", ["gradient", "credit", "stoiht", "random"])
def test_what_left_the_model_leaves_memory_and_so_does_a_selector_that_nobody_holds(selection):
    steps = 0 if selection == "gradient" else 2
    model, optimizer, selector = start(keep=3, select_steps=steps, selection=selection)
    layers = {adapter.name: weakref.ref(adapter.layer) for adapter in selector.adapters}
    if selection == "gradient":
        selector.probe([batch()])
    train(model, optimizer, selector, steps=4)
    gc.collect()
    assert [name for name, layer in layers.items() if layer() is not None] == selector.kept
    dropped = weakref.ref(selector)
    del selector
    gc.collect()
    assert dropped() is None
    train(model, optimizer, None, steps=1)


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
def test_the_decision_keeps_moments_and_computes_what_the_gates_did(selection):
    model, optimizer, selector = start(keep=4, select_steps=6, selection=selection)
    train(model, optimizer, selector, steps=5)
    model(**batch(5)).loss.backward()
    optimizer.step()
    selector.observe()
    adapters = {adapter.name: adapter for adapter in selector.adapters}
    state = {
        n: [{k: v.clone() for k, v in optimizer.state[p].items()} for p in a.parameters] for n, a in adapters.items()
    }
    model.eval()
    before = model(**batch(9)).logits
    selector.advance()
    if selection == "stoiht":  # the losers' gates were 0 already
        torch.testing.assert_close(model(**batch(9)).logits, before, rtol=1e-5, atol=1e-6)
    for name in selector.kept:
        for parameter, old in zip(adapters[name].parameters, state[name], strict=True):
            assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in old.items())
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    before = {name: [p.detach().clone() for p in adapters[name].parameters] for name in selector.kept}
    optimizer.zero_grad()
    train(model.train(), optimizer, selector, start=6)
    for name in selector.kept:
        assert all(not torch.equal(p, old) for p, old in zip(adapters[name].parameters, before[name], strict=True))


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
@pytest.mark.parametrize("expand", ["random", "qr"])
def test_expansion_spends_the_freed_budget_without_changing_the_model(selection, expand):
    plain, grown = (start(keep=3, select_steps=4, selection=selection, expand=how) for how in ("none", expand))
    for run in (plain, grown):
        train(*run, steps=4)
    total = sum(grown[2].sizes.values())
    spent = sum(adapter.size for adapter in grown[2].adapters)
    assert grown[2].kept == plain[2].kept
    assert 0.85 * total < spent <= total
    plain[0].eval(), grown[0].eval()
    torch.testing.assert_close(grown[0](**batch(7)).logits, plain[0](**batch(7)).logits, rtol=1e-4, atol=1e-5)


def test_progressive_rounds_halve_adapters_and_double_ranks():
    model, optimizer, selector = start(keep=3, select_steps=8, rounds=2, expand="qr", expand_rank=16)
    train(model, optimizer, selector, steps=8)
    decisions = [set(entry["ranks"].values()) for entry in selector.history if "kept" in entry]
    assert decisions == [{8}, {16}]
    assert len(selector.kept) == 3


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
@pytest.mark.parametrize("make", [lora_zoo, lora_mixtral])
def test_every_layer_type_selects_disconnects_and_expands(make, selection):
    model = make()
    ids = torch.arange(16).reshape(2, 8) % 20
    _, optimizer, selector = start(model, keep=2, select_steps=3, selection=selection, expand="random")
    for _ in range(5):
        base = base_model_of(model)
        loss = model(ids).square().mean() if make is lora_zoo else model(input_ids=ids, labels=ids).loss
        assert base is base_model_of(model)
        loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert len(find_adapters(model)) == 2 and loss.isfinite()


def test_two_adapters_on_one_model():
    model = lora_bert(task_type=None)
    model.add_adapter("other", LoraConfig(target_modules=["query"], r=2))
    other = {name: value.clone() for name, value in model.state_dict().items() if ".other." in name}
    _, optimizer, selector = start(model, keep=3, select_steps=3, **STOIHT)
    train(model, optimizer, selector, steps=4)
    assert len(find_adapters(model, "default")) == 3
    assert len(find_adapters(model, "other", check=False)) == 2
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in other.items())


def test_switching_and_disabling_adapters_in_mid_selection():
    def run(interrupt: bool):
        model = lora_bert(task_type=None)
        model.add_adapter("other", LoraConfig(target_modules=["query"], r=2))
        _, optimizer, selector = start(model, keep=3, select_steps=6, **STOIHT)
        train(model, optimizer, selector, steps=3)
        if interrupt:
            with torch.no_grad(), model.disable_adapter():
                model(**batch(50))
            model.set_adapter("other")
            model(**batch(51)).loss.backward()
            model.zero_grad()
            model.set_adapter("default")
        train(model, optimizer, selector, steps=3, start=3)
        return selector

    assert run(True).state_dict() == run(False).state_dict()


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_and_checkpointing_give_the_same_choice(selection, checkpointing):
    """4 micro-batches against one batch of the same examples."""

    def run(parts: int, checkpointing: bool):
        model = lora_bert()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        _, optimizer, selector = start(model, keep=3, select_steps=4, selection=selection)
        for step in range(4):
            whole = batch(step)
            for part in range(parts):
                piece = {key: value.chunk(parts)[part] for key, value in whole.items()}
                (model(**piece).loss / parts).backward()
            optimizer.step()
            selector.step()
            optimizer.zero_grad()
        return selector

    plain, split = run(1, False), run(4, checkpointing)
    assert plain.kept == split.kept
    assert list(split.scores.values()) == pytest.approx(list(plain.scores.values()), rel=1e-2, abs=1e-5)


def test_a_loss_scale_is_undone():
    runs = []
    for scale in (1.0, 1024.0):
        model, optimizer, selector = start(keep=3, select_steps=4, **STOIHT)
        for step in range(4):
            (model(**batch(step)).loss * scale).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
            optimizer.step()
            selector.step(grad_scale=scale)
            optimizer.zero_grad()
        runs.append(selector)
    assert runs[0].kept == runs[1].kept
    assert list(runs[1].omega.values()) == pytest.approx(list(runs[0].omega.values()), rel=1e-4)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "x", [1]])
@pytest.mark.parametrize("rule", ["credit", "stoiht"])
def test_a_loss_scale_that_is_none_is_refused(rule, scale):
    model, optimizer, selector = start(keep=3, select_steps=4, selection=rule)
    model(**batch(0)).loss.backward()
    optimizer.step()
    with pytest.raises(ConfigError, match=r"grad_scale=.* is not a positive number: pass scaler.get_scale\(\)\.$"):
        selector.step(grad_scale=scale)


def test_settings_are_those_of_the_moment_and_are_checked_again():
    model, config = lora_bert(), WeightLoraConfig(keep=3)
    selector = WeightLora(model, adamw(model), config)
    config.keep = 9
    assert selector.config.keep == 3 and selector.state_dict()["config"]["keep"] == 3
    config.keep = -5
    with pytest.raises(ConfigError, match="keep=-5"):
        WeightLora(lora_bert(), adamw(model), config)


# Stop and resume


RUNS = {
    "credit": {"selection": "credit"},
    "gates": STOIHT,
    "gates with warm-up": {**STOIHT, "warmup_steps": 3, "threshold_every": 2},
    "rounds with expansion": {**STOIHT, "rounds": 2, "expand": "qr", "warmup_steps": 2},
    "credit in rounds with expansion": {"rounds": 2, "expand": "random"},
    "random": {"selection": "random"},
}


CUTS = [0, 1, 2, 5, 7, 8, 10]


@pytest.fixture(scope="module", params=RUNS)
def whole(request):
    """A run that was not stopped: its settings, what it ends in, its losses, and what it would save at each cut."""
    settings = {"keep": 3, "select_steps": 8} | RUNS[request.param]
    model, optimizer, selector = start(**settings)
    losses, checkpoints = [], {}
    for step in range(12):
        if step in CUTS:
            state = json.loads(json.dumps(selector.state_dict()))
            weights, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
            checkpoints[step] = state, weights, moments, selector.phase, selector.kept
        losses += train(model, optimizer, selector, start=step)
    return settings, (model, selector), losses, checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("restored_first", [False, True])
def test_resuming_is_bit_for_bit_the_run_that_was_not_stopped(whole, cut, restored_first, tmp_path):
    settings, (trained, ended), losses, checkpoints = whole
    saved, weights, moments, phase, kept = copy.deepcopy(checkpoints[cut])
    untouched = copy.deepcopy(saved)
    if restored_first:
        write_state(saved, tmp_path)
        model = lora_bert()
        state = restore(model, tmp_path)
        optimizer = adamw(model)
        selector = WeightLora(model, optimizer, WeightLoraConfig(**settings), state)
    else:
        model, optimizer, selector = start(**settings)
        selector.load_state_dict(saved)
    assert saved == untouched
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    assert selector.phase == phase and selector.kept == kept
    assert train(model, optimizer, selector, steps=12 - cut, start=cut) == losses[cut:]
    assert selector.state_dict() == ended.state_dict()
    for (name, value), expected in zip(model.state_dict().items(), trained.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


def test_a_fraction_resumes_in_a_longer_training_however_the_state_is_given():
    config = WeightLoraConfig(keep=3, select_steps=0.5, rounds=2)
    model, optimizer = (first := lora_bert()), adamw(first)
    train(model, optimizer, selector := WeightLora(model, optimizer, config, total_steps=8), steps=3)
    for given in (None, selector.state_dict()):
        optimizer = adamw(model := lora_bert())
        resumed = WeightLora(model, optimizer, config, given, total_steps=16)
        if given is None:
            resumed.load_state_dict(selector.state_dict())
        assert resumed.config.select_steps == 4 and resumed.state_dict() == selector.state_dict()
        train(model, optimizer, resumed, steps=1, start=3)
        assert resumed.phase == "train" and len(resumed.adapters) == 3


@pytest.mark.parametrize("loaded", [False, True])
def test_a_state_that_is_given_later_is_the_start_like_one_that_is_given_at_once(loaded):
    """What processes compare before they share anything, and what a trainer counts."""
    model, optimizer, selector = start(keep=3, select_steps=4)
    train(model, optimizer, selector, steps=2)
    state = selector.state_dict() | {"carried": 2}
    optimizer = adamw(model := lora_bert())
    resumed = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=4), None if loaded else state)
    if loaded:
        resumed.load_state_dict(state)
    assert resumed.engine.start.to_dict() == resumed.state_dict() == state


def test_a_state_is_a_copy():
    model, optimizer, selector = start(keep=3, select_steps=4)
    train(model, optimizer, selector, steps=2)
    state = selector.state_dict()
    frozen = copy.deepcopy(state)
    train(model, optimizer, selector, steps=3, start=2)
    assert state == frozen != selector.state_dict()


def test_states_that_do_not_fit_are_refused():
    state = start(keep=3, select_steps=4)[2].state_dict()
    with pytest.raises(ValueError, match=r"saved with keep=3, and the config says 4: resume with the settings"):
        start(keep=4, select_steps=4)[2].load_state_dict(state)
    with pytest.raises(ValueError, match=r"the state is of 12 adapters.* and this model has 18"):
        start(lora_bert(layers=3), keep=3, select_steps=4)[2].load_state_dict(state)
    begun = start(keep=3, select_steps=4)
    train(*begun, steps=1)
    with pytest.raises(
        ValueError, match=r"this selection has begun: begin with WeightLora\(model, optimizer, config, state\)\.$"
    ):
        begun[2].load_state_dict(state)
    probed = start(keep=3)
    probed[2].probe([batch(step) for step in range(4)])
    with pytest.raises(
        ValueError, match=r"this selection has begun: begin with WeightLora\(model, optimizer, config, state\)\.$"
    ):
        probed[2].load_state_dict(probed[2].state_dict())


def test_a_state_that_is_refused_changes_nothing():
    model, optimizer, selector = start(keep=3, select_steps=4)
    train(model, optimizer, selector, steps=6)
    other = start(lora_bert(r=8), keep=3, select_steps=4)
    with pytest.raises(ValueError, match="has rank 8 and 256 parameters, and had rank 4 and 128"):
        other[2].load_state_dict(selector.state_dict())
    assert (other[2].step_count, other[2].phase) == (0, "select") and str(other[2].summary())
    train(*other, steps=5)
    assert len(other[2].kept) == 3


@pytest.mark.parametrize("settings", [{"selection": "stoiht"}, {"selection": "credit"}])
def test_a_selector_that_refuses_a_state_leaves_nothing_behind(settings):
    state = start(keep=3, select_steps=4, **settings)[2].state_dict()
    model = lora_bert(r=8)
    optimizer = adamw(model)
    before = len(optimizer._optimizer_step_pre_hooks), sum(len(m._forward_hooks) for m in model.modules())
    with pytest.raises(ValueError, match="had rank 4"):
        WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=4, **settings), state)
    assert before == (
        len(optimizer._optimizer_step_pre_hooks),
        sum(len(m._forward_hooks) for m in model.modules()),
    )


def test_a_state_after_restore_goes_to_the_constructor(tmp_path):
    """A selection that was built on the reduced model takes the budget from what is left of it."""
    settings = {"keep": 0.25, "select_steps": 6, "rounds": 2}
    model, optimizer, selector = start(**settings)
    train(model, optimizer, selector, steps=4)
    write_state(selector.state_dict(), tmp_path)
    again = lora_bert()
    state = restore(again, tmp_path)
    reduced = WeightLora(again, adamw(again), WeightLoraConfig(**settings))
    with pytest.raises(
        ValueError, match=r"^the model had 6 of the 12 adapters when this selection was built: pass the"
    ):
        reduced.load_state_dict(state)
    assert WeightLora(again, adamw(again), WeightLoraConfig(**settings), state).names == selector.names


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 13}, r"keep=13 is more than the model's 12 LoRA adapters: keep 12 or fewer"),
        (
            {"keep_parameters": 100},
            r"keep_parameters allows 100 parameters, less than the 128 of the smallest adapter: raise",
        ),
        ({"expand": "qr", "expand_rank": 3}, r"expand_rank=3 is below the adapters' rank of 4: raise it"),
        ({"adapter_name": "nobody"}, r"adapter_name='nobody' is not on the model: it has 'default'"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        start(select_steps=4, **settings)


@pytest.mark.parametrize("config", [{"keep": 3}, {}, 0.25, WeightLoraConfig])
def test_settings_of_another_type_are_refused(config):
    model = lora_bert()
    with pytest.raises(ConfigError, match=r"^config is a \w+: pass a WeightLoraConfig\.$"):
        WeightLora(model, adamw(model), config)


def test_step_before_backward_is_refused():
    _, _, selector = start(keep=3, select_steps=4, **STOIHT)
    with pytest.raises(ValueError, match=r"no gate got a gradient: call step\(\) after backward\(\)"):
        selector.step()


def test_finish_without_evidence_is_refused_and_changes_nothing():
    for selection in ("credit", "stoiht"):
        model, _, selector = start(keep=3, select_steps=4, selection=selection)
        with pytest.raises(ValueError, match="all adapters score the same after 0 steps"):
            selector.finish()
        assert len(find_adapters(model)) == 12 and selector.phase == "select"


@pytest.mark.parametrize("selection", ["credit", "stoiht", "random"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("steps", [2, 5], ids=["in the selection", "after the choice"])
def test_a_step_that_would_spoil_the_weights_is_not_made(selection, bad, steps):
    model, optimizer, selector = start(keep=3, select_steps=4, selection=selection)
    train(model, optimizer, selector, steps=steps)
    good, weights = copy.deepcopy(selector.history), copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    (model(**batch(steps)).loss * bad).backward()
    message = (
        r"^the gradient of 'base_model\.model.*' is NaN or infinite: training has diverged, and this step is not "
    )
    with pytest.raises(TrainingError, match=message + r"made\. Lower the learning rate, and start again\.$"):
        optimizer.step()
    assert selector.history == good and selector.step_count == min(steps, 4)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments["state"][index][key]) for key, value in state.items())


def test_gates_alone_that_diverge_stop_with_the_last_good_ones_in_the_history():
    model, optimizer, selector = start(keep=3, select_steps=9, **STOIHT)
    train(model, optimizer, selector, steps=2)
    good = copy.deepcopy(selector.history)
    model(**batch(2)).loss.backward()
    selector._rule.gates[0].omega.grad.fill_(math.nan)
    optimizer.step()
    with pytest.raises(TrainingError, match=r"the evidence on adapter '.*' is nan in step 3: training has diverged"):
        selector.step()
    assert selector.history == good and selector.step_count == 2


@pytest.mark.parametrize("selection", ["credit", "stoiht", "random"])
def test_a_scaler_that_has_come_down_to_1_skips_steps_as_well(selection):
    model, optimizer, selector = start(keep=3, select_steps=4, selection=selection)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scales = []
    for step in range(8):
        loss = model(**batch(step)).loss * (math.inf if step in (1, 2) else 1.0)
        scaler.scale(loss).backward()
        scales.append(scaler.get_scale())
        scaler.step(optimizer)
        selector.step(grad_scale=scaler.get_scale())
        scaler.update()
        optimizer.zero_grad()
    assert scales[:4] == [2.0, 2.0, 1.0, 0.5]
    assert [entry["step"] for entry in selector.history] == [1, 2, 3, 4, 4]
    assert len(selector.kept) == 3 == len(find_adapters(model))


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
def test_clipping_by_value_does_not_hide_that_a_scaler_skipped_a_step(selection):
    model, optimizer, selector = start(keep=3, select_steps=4, selection=selection)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for step in range(8):
        scaler.scale(model(**batch(step)).loss).backward()
        if step in (1, 2):  # only one entry overflows in the backward pass
            trained[0].grad.view(-1)[0] = math.inf
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_value_(trained, 1.0)
        scaler.step(optimizer)
        selector.step(grad_scale=scaler.get_scale())
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 1.0 and len(selector.kept) == 3
    assert [entry["step"] for entry in selector.history] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("selection", ["credit", "random"])
@pytest.mark.parametrize("scale", [None, 1.0, 1024.0])
def test_a_step_that_no_scaler_skipped_is_missed(selection, scale):
    """At the second of them with a scaler, which would have lowered the scale after the first one."""
    model, _, selector = start(keep=3, select_steps=4, selection=selection)
    model(**batch()).loss.backward()
    if scale is not None:
        selector.step(grad_scale=scale)
        model(**batch()).loss.backward()
    with pytest.raises(TrainingError, match=r"the optimizer has not stepped before each step\(\)"):
        selector.step(grad_scale=scale)


@pytest.mark.parametrize("selection", ["credit", "stoiht", "random"])
@pytest.mark.parametrize("seen", [0, 1])
def test_a_step_of_the_optimizer_that_the_selection_did_not_see_is_an_error(selection, seen):
    """In a loop that never calls step(), nothing would be chosen, and nobody would say so."""
    model, optimizer, selector = start(keep=3, select_steps=4, selection=selection)
    train(model, optimizer, selector, steps=seen)
    several = r"made several steps since the last step\(\) of the selection"
    model(**batch()).loss.backward()
    optimizer.step()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(TrainingError, match=several):
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    with pytest.raises(TrainingError, match=several):
        selector.step()
    assert selector.step_count == seen


def test_once_the_choice_is_made_a_loop_need_not_call_step():
    model, optimizer, selector = start(keep=3, select_steps=2)
    train(model, optimizer, selector, steps=2)
    assert selector.phase == "train"
    train(model, optimizer, steps=3)


def test_finish_decides_early_and_only_once():
    model, optimizer, selector = start(keep=3, select_steps=100)
    train(model, optimizer, selector, steps=3)
    selector.finish()
    assert selector.phase == "train" and len(find_adapters(model)) == 3
    kept = selector.kept
    selector.finish()
    train(model, optimizer, selector, steps=2, start=3)
    assert selector.kept == kept and selector.step_count == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_parameters": 0.5},
        {"keep": 2, "selection": "random", "select_steps": 0},
        {"keep": 2, "select_steps": 4, "rounds": 2, "expand": "qr"},
        {"keep": 2, "select_steps": 3, **STOIHT, "constraint": "simplex"},
        {"keep": 1, "keep_memory": "1MiB"},
    ],
)
def test_a_default_device_of_the_user_changes_nothing(settings):
    """`meta` stands for an accelerator: what is made there cannot be read, or be put together with what is not."""
    x, found = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        model = get_peft_model(Mlp(), LoraConfig(r=2, target_modules=["0", "1", "2", "3"]))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = lambda rows, model=model: model(rows).square().mean()  # noqa: E731
        with torch.device(device):
            selector = WeightLora(model, optimizer, config := WeightLoraConfig(**settings))
            if selector.needs_probe:
                selector.probe([x] * 4, loss)
            for _ in range(selector.config.steps):
                loss(x).backward()
                optimizer.step()
                selector.step()
                optimizer.zero_grad()
            again = WeightLora(model, optimizer, config, selector.state_dict())
        assert again.state_dict() == selector.state_dict()
        found.append({name: value.clone() for name, value in model.state_dict().items()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("settings", [{"expand": "restart"}, {"selection": "random"}])
def test_a_seed_may_be_larger_than_what_torch_takes(settings):
    """Such as `time.time_ns()`, of which a thousandfold is the seed of new factors."""
    kept = []
    for seed in (0, 1_796_122_379_603_149_044, 2**80):
        model, optimizer, selector = start(keep=3, select_steps=2, seed=seed, **settings)
        train(model, optimizer, selector, steps=3)
        kept.append(selector.kept)
    assert all(len(one) == 3 for one in kept)
