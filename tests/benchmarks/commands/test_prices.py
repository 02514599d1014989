"""`python -m benchmarks prices`: the prices of a task's model, as the methods read them."""

import json

import pytest
from benchmarks.__main__ import main
from benchmarks.methods.within import read_prices

from weightlora.costs import Costs


@pytest.mark.slow
def test_the_prices_of_a_task_are_stored(tmp_path, monkeypatch, capsys):
    costs = Costs("step_time", [0, 1], [1.0, 2.0], [0.0, 0.0], [0.1, 0.2], 2.5)
    asked = []

    def price(job):
        asked.append(job)
        return costs, ["a", "b"]

    monkeypatch.setattr("weightlora.train.pricing.price", price)
    path = tmp_path / "prices.json"
    assert main(["prices", "--output", str(path)]) == 0
    assert (
        read_prices(str(path), ["a", "b"]) == costs and json.loads(path.read_text())["task"] == "rotten-tomatoes-all"
    )
    assert asked[0].plan.adapters == 37 and asked[0].plan.keep is None
    assert "a step with all 2 adapters takes 2.5 s" in capsys.readouterr().out
