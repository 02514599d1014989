"""Modules within a budget of step time, by stored prices."""

import json
from dataclasses import asdict

import pytest
from accelerate import init_empty_weights
from benchmarks.methods import ALL_METHODS
from benchmarks.methods.within import read_prices
from models import BERT_TARGETS, batch, tiny_bert

from weightlora.adapters import find_adapters
from weightlora.costs import Costs
from weightlora.errors import ConfigError, DataError, ModelError
from weightlora.train.methods import Setting

NAMES = [
    f"bert.encoder.layer.{layer}.{target}"
    for layer in range(2)
    for target in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
]
GROUPS = [7, 7, 7, 6, 5, 4, 3, 3, 3, 2, 1, 0]
COSTS = Costs("step_time", GROUPS, [4.0 + group for group in range(8)], [0.0] * 8, [0.5] * 12, 17.0)


@pytest.fixture
def prices(tmp_path) -> str:
    (tmp_path / "prices.json").write_text(json.dumps({"names": NAMES, "costs": asdict(COSTS)}))
    return str(tmp_path / "prices.json")


def kept(method: str, seed: int = 0, **options) -> list[str]:
    target = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"}
    values = {"rank": 4, "alpha": 8, "dropout": 0.0, "keep": 3, "select_steps": 3, "steps": 6, "seed": seed}
    prepared = ALL_METHODS[method].prepare(
        Setting(tiny_bert(), target, batches=lambda: iter([batch()]), **values, options=options)
    )
    assert prepared.candidates is not None and list(prepared.candidates) == NAMES
    return [adapter.name for adapter in find_adapters(prepared.model)]


def cost(names: list[str]) -> float:
    return COSTS.predict([name in names for name in NAMES])


def test_the_nearest_to_the_output_come_first(prices):
    assert kept("within-nearest", prices=prices, share=0.4) == [NAMES[9], NAMES[10], NAMES[11]][1:]
    assert cost(kept("within-nearest", prices=prices, share=0.6)) <= 0.6 * 17


def test_the_best_by_the_probe_fit_and_no_other_fits_beside_them(prices):
    names = kept("within", prices=prices, share=0.6)
    assert 0 < len(names) < 12 and cost(names) <= 0.6 * 17
    assert kept("within", prices=prices, share=0.99) != names


def test_random_sets_are_as_deep_as_the_choice(prices, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.methods.within.kept_by", lambda folder, seed: [NAMES[5], NAMES[10]])
    drawn = [kept("within-random", seed, prices=prices, share=0.57, like="folder") for seed in (0, 1)]
    for names in drawn:
        assert max(GROUPS[NAMES.index(name)] for name in names) == 4 and cost(names) <= 0.57 * 17
    assert drawn[0] != drawn[1]


def test_what_is_wrong_with_the_options(prices, tmp_path):
    with pytest.raises(ConfigError, match=r"^share=1 is not a part of a step"):
        kept("within", prices=prices, share=1)
    with pytest.raises(ConfigError, match=r"^share=0\.1 has no room for an adapter"):
        kept("within", prices=prices, share=0.1)
    with pytest.raises(DataError, match=r"are missing: run python -m benchmarks prices first\.$"):
        kept("within", prices=str(tmp_path / "no.json"), share=0.5)
    with pytest.raises(DataError, match="has the prices of other modules"):
        read_prices(prices, NAMES[1:])


@pytest.mark.parametrize("method", [name for name in ALL_METHODS if name.startswith("within")])
def test_the_plan_runs_every_method_that_needs_no_weights(method, prices, monkeypatch):
    monkeypatch.setattr("benchmarks.methods.within.kept_by", lambda folder, seed: [NAMES[5], NAMES[10]])
    if not ALL_METHODS[method].reads_weights:
        with init_empty_weights():
            assert kept(method, prices=prices, share=0.57, like="folder")
    else:
        with init_empty_weights(), pytest.raises(ModelError, match="is on the meta device"):
            kept(method, prices=prices, share=0.57)
