"""A ground truth that the regressions must recover, noise that they must not explain, and percentiles by hand."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.pages.headroom import fit_membership, place_methods, render_headroom_markdown, stand
from hypothesis import given
from hypothesis import strategies as st
from stored import result

from weightlora.errors import DataError

TYPES = ("attention.query", "attention.value", "mlp.up", "mlp.down")
NAMES = [f"encoder.layer.{layer}.{kind}" for layer in range(6) for kind in TYPES]


def run(kept, loss, seed=0, **changes):
    return result("random", seed, loss, **{"kept": kept, "names": NAMES, "after": 10 * len(kept)} | changes)


def with_loss(run, loss):
    """The same run with another loss."""
    return replace(run, metrics={"test": {**run.metrics["test"], "held_out_loss": loss}})


def draw(effects, count, noise=0.0, keep=6, seed=0):
    """Runs of random subsets whose loss is 0.5, plus the effects of the members, plus noise."""
    generator = np.random.default_rng(seed)
    results = []
    for number in range(count):
        members = generator.choice(len(NAMES), keep, replace=False)
        loss = 0.5 + sum(effects[i] for i in members) + noise * generator.normal()
        results.append(run([NAMES[i] for i in members], float(loss), number))
    return results


@pytest.fixture(scope="module")
def effects():
    return np.random.default_rng(7).normal(0, 0.01, len(NAMES))


@pytest.fixture(scope="module")
def fit(effects):
    return fit_membership(draw(effects, 120))


def test_a_linear_truth_is_recovered(fit, effects):
    coefficients = fit["adapters"]["coefficients"]
    assert list(coefficients) == NAMES
    np.testing.assert_allclose(list(coefficients.values()), effects - effects.mean(), atol=2e-4)
    assert fit["adapters"]["r2"] > 0.999
    assert (fit["runs"], fit["subsets"], fit["n"], fit["keep"]) == (120, 120, 24, 6)


def test_the_best_set_has_the_lowest_true_loss(fit, effects):
    lowest = sorted(np.argsort(effects)[:6])
    assert fit["best"]["kept"] == [NAMES[i] for i in lowest]
    assert fit["best"]["loss"] == pytest.approx(0.5 + effects[lowest].sum(), abs=1e-3)


def test_types_and_layers_are_mean_coefficients(fit, effects):
    centred = (effects - effects.mean()).reshape(6, 4)
    assert list(fit["types"]) == list(TYPES)
    np.testing.assert_allclose(list(fit["types"].values()), centred.mean(axis=0), atol=2e-4)
    assert list(fit["layers"]) == list("012345")
    np.testing.assert_allclose(list(fit["layers"].values()), centred.mean(axis=1), atol=2e-4)


def test_the_spread_is_that_of_the_runs(effects):
    results = draw(effects, 30)
    losses = [result.held_out_loss for result in results]
    spread = fit_membership(results)["loss"]
    assert spread["mean"] == pytest.approx(np.mean(losses))
    assert spread["std"] == pytest.approx(np.std(losses, ddof=1))
    assert (spread["min"], spread["max"]) == (min(losses), max(losses))


def test_groups_are_thirds_of_the_depth_and_module_types():
    by_group = np.zeros((6, 4))
    by_group[2:4, 2] = -0.02  # the middle third's mlp.up
    fit = fit_membership(draw(by_group.reshape(-1), 120))
    groups = fit["groups"]["coefficients"]
    assert list(groups) == [f"{third} {kind}" for third in ("lower", "middle", "upper") for kind in TYPES]
    assert fit["groups"]["r2"] > 0.999
    assert min(groups, key=groups.get) == "middle mlp.up"
    others = [value for name, value in groups.items() if name != "middle mlp.up"]
    assert groups["middle mlp.up"] - np.mean(others) == pytest.approx(-0.02, abs=1e-3)


def test_size_is_told_from_kind():
    def results(loss_of, seed=0):
        drawn = draw(np.zeros(len(NAMES)), 60, noise=0.001, seed=seed)
        found = []
        for run in drawn:
            parameters = 10 * (6 + sum("mlp" in name for name in run.kept))
            loss = run.held_out_loss + loss_of(parameters, run.kept)
            found.append(with_loss(replace(run, adapter_parameters_after=parameters), loss))
        return found

    larger_is_better = results(lambda parameters, kept: -1e-3 * parameters)
    size = fit_membership(larger_is_better)["size"]
    parameters = [run.adapter_parameters_after for run in larger_is_better]
    assert size["mean"] == pytest.approx(np.mean(parameters))
    assert size["std"] == pytest.approx(np.std(parameters, ddof=1))
    assert size["coefficients"]["parameters"] == pytest.approx(-1e-3 * size["std"], rel=0.05)
    assert size["r2"] > 0.9
    of_kind = fit_membership(results(lambda parameters, kept: -0.01 * (NAMES[0] in kept)))
    assert of_kind["size"]["r2"] < 0.2 < 0.9 < of_kind["adapters"]["r2"]


def test_subsets_of_as_many_parameters_have_no_effect_of_size(fit):
    assert fit["size"] is None
    assert "number of parameters" not in render_headroom_markdown("t", fit, {})


def test_a_module_outside_the_layers_is_a_group_of_its_own():
    names = [*NAMES[:4], "head"]
    generator = np.random.default_rng(0)
    results = [run([str(n) for n in generator.choice(names, 2, replace=False)], 0.0, names=names) for _ in range(30)]
    results = [with_loss(run, 0.5 + 0.1 * ("head" in run.kept)) for run in results]
    fit = fit_membership(results)
    assert list(fit["groups"]["coefficients"]) == [*(f"lower {kind}" for kind in TYPES), "head"]
    assert fit["layers"].keys() == {"0", "-"}
    assert max(fit["types"], key=fit["types"].get) == "head"


def test_noise_is_not_explained():
    fit = fit_membership(draw(np.zeros(len(NAMES)), 80, noise=0.02))
    assert fit["adapters"]["r2"] < 0.1
    half = fit_membership(draw(np.random.default_rng(7).normal(0, 0.01, len(NAMES)), 200, noise=0.022))["adapters"][
        "r2"
    ]
    assert 0.2 < half < 0.7  # effects and noise of about the same variance


def test_repeats_of_a_subset_do_not_predict_one_another():
    generator = np.random.default_rng(3)
    results = []
    for one in draw(np.zeros(len(NAMES)), 12):
        loss = generator.normal()  # of the subset: its members say nothing about those of other subsets
        results += [with_loss(one, loss + 1e-3 * repeat) for repeat in range(3)]
    fit = fit_membership(results)
    assert (fit["runs"], fit["subsets"]) == (36, 12)
    assert fit["adapters"]["r2"] < 0.3


def test_the_order_of_runs_does_not_matter(effects):
    results = draw(effects, 20, noise=0.01)
    one, other = fit_membership(results), fit_membership(results[::-1])
    assert one["adapters"]["r2"] == pytest.approx(other["adapters"]["r2"])
    assert one["adapters"]["coefficients"] == pytest.approx(other["adapters"]["coefficients"])


def test_runs_on_other_adapters_are_refused(effects):
    results = draw(effects, 10)
    results[5] = replace(results[5], names=NAMES[::-1])
    with pytest.raises(DataError, match=r"random, seed 5: its adapters are not those of the first result"):
        fit_membership(results)


def test_percentiles_by_hand():
    losses = [0.1, 0.2, 0.3, 0.4]
    assert [stand(value, losses) for value in (0.05, 0.15, 0.25, 0.5)] == [0, 25, 50, 100]
    assert stand(1.0, [0.0] * 11) == 100, "and not a rounding error more"
    assert stand(0.2, losses) == 37.5  # one lower, one tie that counts half


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.floats(0, 5), st.floats(0, 5))
def test_a_percentile_grows_with_the_loss_and_mirrors(losses, one, other):
    low, high = sorted((one, other))
    assert 0 <= stand(low, losses) <= stand(high, losses) <= 100
    assert stand(-one, [-loss for loss in losses]) == pytest.approx(100 - stand(one, losses))


def test_methods_are_placed_by_their_mean_loss_and_paired_by_seed():
    runs = [("b", 0, 0.1), ("a", 7, 0.35), ("b", 1, 0.2)]
    results = [result(label, seed, loss) for label, seed, loss in runs]
    subsets = [result("random-2", seed, loss) for seed, loss in enumerate([0.4, 0.3, 0.2, 0.1])]
    placed = place_methods(results, subsets)
    assert list(placed) == ["b", "a"]
    expected = {"mean": pytest.approx(-0.2), "ci": pytest.approx(12.706205 * 0.1), "wins": 2}
    assert placed["b"] == {"loss": pytest.approx(0.15), "seeds": 2, "percentile": 25, "vs": expected}
    assert placed["a"] == {"loss": 0.35, "seeds": 1, "percentile": 75, "vs": None}


def test_the_text_tells_what_the_fit_is_worth(fit):
    versus = {"mean": -0.02, "ci": 0.01, "wins": 3}
    place = {"loss": 0.4, "seeds": 3, "percentile": 12.4, "vs": versus}
    markdown = render_headroom_markdown("my_task", fit, {"cr|edit": place})
    assert "## my\\_task" in markdown
    assert "120 runs of 120 random subsets of 24 adapters" in markdown
    assert f"- {fit['best']['kept'][0]}\n" in markdown
    assert f"| mlp.up | {fit['types']['mlp.up']:+.5f} |" in markdown
    assert "| cr\\|edit | 3 | 0.4000 | 12 % | -0.0200 ± 0.0100 ▼ |" in markdown
    assert "mean nothing" not in markdown

    size = {"r2": 0.25, "mean": 82944.4, "std": 13824.0, "coefficients": {"parameters": -0.00234}}
    sized = render_headroom_markdown("t", {**fit, "size": size}, {})
    assert "0.25 from the number of parameters alone. The rest" in sized
    assert (
        "have 82,944 parameters on average, with a standard deviation of 13,824. One standard deviation more" in sized
    )
    assert "the predicted loss by -0.0023." in sized
    sized = render_headroom_markdown("t", {**fit, "size": {**size, "r2": -0.25}}, {})
    assert "-0.25 from the number of parameters alone" in sized and "82,944" not in sized, "no better than the mean"

    worthless = {**fit, "adapters": {**fit["adapters"], "r2": -0.2}}
    assert "mean nothing" in render_headroom_markdown("t", worthless, {})
