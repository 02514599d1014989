"""Tables in the layout of the paper: percent, and parameters with or without the head."""

import pytest
from benchmarks.pages.layout import render_layout
from stored import result


@pytest.mark.parametrize(
    ("metrics", "cell"),
    [
        ({"f1": (0.5, "fraction"), "accuracy": (0.75, "fraction")}, "50.00 / 75.00"),
        ({"f1": (88.5, "percent"), "exact_match": (80.25, "percent")}, "88.50 / 80.25"),
        ({"perplexity": (20.0, "none")}, "20.00"),
    ],
)
def test_every_table_is_in_percent(metrics: dict[str, tuple[float, str]], cell: str):
    values = {"held_out_loss": 1.0} | {name: value for name, (value, _) in metrics.items()}
    units = {name: unit for name, (_, unit) in metrics.items()}
    made = result("m", metric=next(iter(metrics)), metrics={"test": values}, metric_units=units, after=1000)
    assert f"| m | 1 | 1,000 | {cell} |" in render_layout([made])


def test_a_sweep_counts_the_head_as_the_paper_does():
    made = result("m", trainable_parameters_after=2000, after=1000, settings={"settings": {}})
    assert "| m | 1 | 2,000 |" in render_layout([made])
