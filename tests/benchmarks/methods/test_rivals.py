"""Rules of other papers: each score by hand, and what is kept at which rank."""

import dataclasses

import pytest
import torch
from benchmarks.methods import ALL_METHODS, rivals
from models import batch, tiny_bert

from weightlora.adapters import find_adapters
from weightlora.layers import block_of
from weightlora.train.methods import Setting

NAMES = ["gora-per-block", "fisher", "kappatune", "plop", "plop-lowest", "aletheia", "cka", "cka-first-token", "page"]
NAMES += ["page-in-blocks"]


@pytest.fixture
def setting():
    target = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}

    def make(**options):
        values = {"rank": 4, "alpha": 8, "dropout": 0.0, "keep": 2, "select_steps": 2, "steps": 6, "seed": 0}
        batches = lambda: iter([batch(0), batch(1)])  # noqa: E731
        return Setting(model=tiny_bert(), target=target, batches=batches, options=options, **values)

    return make


@pytest.fixture
def ready(setting):
    """A setting whose model has adapters on all modules, and these."""
    made = setting()
    return made, find_adapters(made.lora())


def mean_gradients(made) -> dict[str, torch.Tensor]:
    """By hand, on a model without adapters."""
    model = tiny_bert()
    for step in range(2):
        model(**batch(step)).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_gora_and_page_by_hand(ready):
    made, adapters = ready
    found, weights = mean_gradients(made), dict(tiny_bert().named_parameters())
    expected = [float((weights[f"{a.name}.weight"] * found[f"{a.name}.weight"]).abs().mean()) for a in adapters]
    assert rivals.gora(made, adapters) == pytest.approx(expected, rel=1e-3)

    energies = []
    for adapter in adapters:
        energy = 0.0
        for step in range(2):
            model = tiny_bert()
            model(**batch(step)).loss.backward()
            gradient = model.get_submodule(adapter.name).weight.grad
            energy += float((adapter.scaling * gradient @ adapter.factors[0].detach().T).square().sum())
        energies.append(energy)
    assert rivals.energies(made, adapters) == pytest.approx(energies, rel=1e-3)


def test_fisher_and_gradient_norms_add_up_over_batches(ready):
    made, adapters = ready
    squares, norms = torch.zeros(len(adapters)), torch.zeros(len(adapters))
    for step in range(2):
        for rows, total in ((8, squares), (1, norms)):
            model = tiny_bert()
            model(**{key: value[:rows] for key, value in batch(step).items()}).loss.backward()
            gradients = [model.get_submodule(adapter.name).weight.grad for adapter in adapters]
            total += torch.stack([g.square().mean() if rows == 8 else g.norm() for g in gradients])
    assert rivals.fisher(made, adapters) == pytest.approx(squares.tolist(), rel=1e-3)
    assert rivals.gradient_norms(made, adapters) == pytest.approx(norms.tolist(), rel=1e-3)
    assert not any(parameter.requires_grad for a in adapters for parameter in a.layer.get_base_layer().parameters())


def test_feature_norms_are_1_on_gaussian_inputs_and_one_number_for_each_type(ready):
    made, adapters = ready
    scores = rivals.feature_norms(made, adapters)
    assert len(adapters) == 13 and len(set(scores)) == 7, "six types in two blocks, and the pooler"
    by_type = dict(zip((adapter.name.split(".", 4)[-1] for adapter in adapters), scores, strict=True))
    assert by_type["attention.output.dense"] != by_type["output.dense"], "not every `dense` is of one type"
    assert all(0.3 < score < 3 for score in scores), "random weights hardly prefer a direction"


def test_similarities_are_those_of_the_hidden_states_around_a_layer(ready):
    made, adapters = ready
    states = [made.model(**batch(step), output_hidden_states=True).hidden_states for step in range(2)]
    scores = dict(
        zip((block_of(adapter.name) for adapter in adapters), rivals.similarities(made, adapters), strict=True)
    )
    for layer in range(2):
        before, after = (torch.cat([of[layer + more].flatten(0, 1) for of in states]) for more in range(2))
        assert scores[f"bert.encoder.layer.{layer}"] == pytest.approx(rivals._cka(before, after), rel=1e-4)


def test_of_the_first_tokens_the_layer_that_they_enter_alike_has_0_and_is_passed_over(ready):
    made, adapters = ready
    rows = [batch(step) for step in range(2)]
    for one in rows:
        one["input_ids"][:, 0] = 2
    made = dataclasses.replace(made, batches=lambda: iter(rows))
    states = [made.model(**one, output_hidden_states=True).hidden_states for one in rows]
    found = rivals.similarities(made, adapters, first_tokens=True)
    scores = dict(zip((block_of(adapter.name) for adapter in adapters), found, strict=True))
    before, after = (torch.cat([of[layer][:, 0] for of in states]) for layer in (1, 2))
    assert scores["bert.encoder.layer.0"] == pytest.approx(0, abs=1e-6)
    assert scores["bert.encoder.layer.1"] == pytest.approx(rivals._cka(before, after), rel=1e-4) and found[-2] > 0
    kept = rivals.CHOICES["cka-first-token"](made, adapters)
    assert {block_of(name) for name in kept} == {"bert.encoder.layer.1"}


@pytest.mark.parametrize("score", [rivals.feature_norms, rivals.similarities])
def test_padding_does_not_count(setting, score):
    found = []
    for padding in (0, 5):
        made = setting()
        for parameter in made.model.parameters():  # so large that the layers are not nearly the identity
            parameter.data.mul_(20)
        padded = {
            "input_ids": torch.nn.functional.pad(batch(0)["input_ids"], (0, padding)),
            "attention_mask": torch.nn.functional.pad(torch.ones_like(batch(0)["input_ids"]), (0, padding)),
        }
        made = dataclasses.replace(made, batches=lambda padded=padded: iter([padded]))
        found.append(score(made, find_adapters(made.lora())))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_linear_cka_is_1_for_a_rotation_and_small_for_noise():
    generator = torch.Generator().manual_seed(0)
    one, noise = torch.randn(400, 4, generator=generator), torch.randn(400, 4, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert rivals._cka(one, 3 * one @ rotation + 1) == pytest.approx(1, abs=1e-4)
    assert rivals._cka(one, noise) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_its_share_of_the_parameters(setting, name):
    prepared = ALL_METHODS[name].prepare(setting())
    kept = find_adapters(prepared.model)
    total = sum(prepared.candidates.values()) * 4 // kept[0].rank
    assert sum(adapter.size for adapter in kept) == pytest.approx(total / 4, rel=0.35)
    assert not prepared.callbacks and len(prepared.candidates) == 13
    if name.startswith("page"):
        assert len(kept) == 1 and kept[0].rank > 4
    if name in ("aletheia", "cka", "cka-first-token"):
        assert len(kept) == 6 and len({block_of(adapter.name) for adapter in kept}) == 1


def test_the_lowest_are_the_opposite_end(setting):
    names = [
        {a.name for a in find_adapters(ALL_METHODS[name].prepare(setting()).model)} for name in ("plop", "plop-lowest")
    ]
    assert not names[0] & names[1]


def test_condition_numbers_are_in_the_order_of_those_of_the_frozen_weights(ready):
    made, adapters = ready
    places = rivals.condition_numbers(made, adapters)
    by_hand = [float(torch.linalg.cond(rivals.weight_of(adapter).detach())) for adapter in adapters]
    assert sorted(range(len(adapters)), key=places.__getitem__) == sorted(
        range(len(adapters)), key=by_hand.__getitem__
    )


def test_the_one_module_may_have_to_be_in_a_block(ready):
    made, adapters = ready
    (pooler,) = (adapter.name for adapter in adapters if not block_of(adapter.name))
    assert rivals.best_one(lambda *_: [float(a.name == pooler) for a in adapters], made, adapters) == [pooler]
    ascending = lambda *_: [*map(float, range(13))]  # noqa: E731
    (inside,) = rivals.best_one(ascending, made, adapters, within_blocks=True)
    assert inside == [adapter.name for adapter in adapters if block_of(adapter.name)][-1]
