"""What steps of a planned run cost, before it begins."""

import json
from pathlib import Path

from recipes import BAD, GOOD, arguments

from weightlora.train import parse, prepare
from weightlora.train.pricing import has_prices, price


def test_prices_are_measured_and_nothing_is_written(world: Path, rows: Path, tmp_path: Path):
    texts = [{"text": f"{(GOOD, BAD)[i % 2]} {i}", "label": i % 2} for i in range(16)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts))

    def job(*more: str):
        files = ["--train_file", rows, "--validation_file", rows]
        return prepare(parse(arguments(world, "text-classification", "deberta", tmp_path / "out", *files, *more)))

    assert not has_prices(job("--method_options", '{"keep_step_time": null}'))
    assert not has_prices(job()) and not has_prices(job("--method", "lora"))
    bounded = job("--keep_memory", "1GiB", "--method_options", '{"selection": "stoiht", "rank_by": "magnitude"}')
    assert has_prices(bounded)
    costs, names = price(bounded)
    assert len(names) == len(set(names)) == len(costs.own)
    assert costs.resource == "memory" and len(costs.own) == bounded.plan.adapters and costs.whole < 2**30
    assert not (tmp_path / "out").exists()
