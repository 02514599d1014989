"""The picture shows what it is given: rows in order, marks at their values, the file whole or not at all."""

import pytest
from pictures import PNG, labels, means, texts
from processes import fork_server

from weightlora.compare.picture import draw_comparison


def entry(mean, ci=0.01, parameters=1000, versus=None):
    return {"loss": {"mean": mean, "ci": ci}, "trainable_parameters": parameters, "vs_random": versus}


def test_rows_are_sorted_and_filled_where_the_interval_excludes_zero(figure_of):
    methods = {
        "random": entry(0.50),
        "better": entry(0.45, versus={"mean": -0.05, "ci": 0.01}),
        "unsure": entry(0.49, versus={"mean": -0.01, "ci": 0.02}),
        "once": entry(0.46, ci=None, versus={"mean": -0.04, "ci": None}),
    }
    losses, _ = figure_of(draw_comparison, "t", methods, {}).axes
    assert labels(losses) == ["better", "once", "unsure", "random"]
    assert means(losses) == [(0, 0.45, True), (1, 0.46, False), (2, 0.49, False), (3, 0.50, False)]


def test_without_random_the_means_are_compared_with_lora(figure_of):
    better = entry(0.45) | {"vs_lora": {"mean": -0.05, "ci": 0.01}}
    figure = figure_of(draw_comparison, "t", {"lora": entry(0.50), "better": better}, {})
    assert means(figure.axes[0]) == [(0, 0.45, True), (1, 0.50, False)]
    assert figure.legends[0].get_texts()[-1].get_text() == "differs from lora (paired by seed, 95 %)"
    alone = figure_of(draw_comparison, "t", {"better": better}, {})
    assert means(alone.axes[0]) == [(0, 0.45, False)] and len(alone.legends[0].get_texts()) == 2


def test_every_seed_of_a_row_is_drawn(figure_of):
    seeds = {"a": [0.44, 0.46], "unknown": [8.0]}
    losses, _ = figure_of(draw_comparison, "t", {"a": entry(0.45, ci=None)}, seeds).axes
    assert sorted(line.get_xdata()[0] for line in losses.lines if line.get_marker() == "o") == [0.44, 0.46]


def test_intervals_span_mean_plus_and_minus_ci(figure_of):
    losses, _ = figure_of(draw_comparison, "t", {"a": entry(0.5, 0.02), "b": entry(0.6, None)}, {}).axes
    spans = [list(line.get_xdata()) for line in losses.lines if line.get_marker() == "None"]
    assert spans == [[pytest.approx(0.48), pytest.approx(0.52)]]


def test_references_are_lines_at_their_means_with_their_names(figure_of):
    methods = {"lora": entry(0.44), "random": entry(0.50), "other": entry(0.47)}
    losses, _ = figure_of(draw_comparison, "t", methods, {}).axes
    vertical = [line.get_xdata() for line in losses.lines if list(line.get_ydata()) == [0, 1]]
    assert sorted(line[0] for line in vertical) == [0.44, 0.50]
    assert {"lora", "random"} <= set(texts(losses)) and "other" not in texts(losses)


def test_a_method_far_outside_becomes_an_arrow_with_its_value(figure_of):
    methods = {f"m{i}": entry(0.44 + 0.005 * i) for i in range(15)} | {"diverged": entry(5.25)}
    seeds = {name: [row["loss"]["mean"]] for name, row in methods.items()}
    losses, _ = figure_of(draw_comparison, "t", methods, seeds).axes
    assert losses.get_xlim()[1] < 0.6
    assert "5.250 \u25b6" in texts(losses)
    assert len(means(losses)) == 15
    seeds = [line for line in losses.lines if line.get_marker() == ">" and line.get_ydata()[0] % 1]
    assert len(seeds) == 1, "the arrows on a row are the ends of intervals"


def test_few_methods_are_all_inside(figure_of):
    losses, _ = figure_of(draw_comparison, "t", {"a": entry(0.4), "b": entry(0.41), "c": entry(0.9)}, {}).axes
    assert len(means(losses)) == 3


def test_parameters_are_on_a_log_axis_with_their_number(figure_of):
    methods = {
        "small": entry(0.5, parameters=900),
        "none": entry(0.6, parameters=0),
        "full": entry(0.4, parameters=22_700_000),
    }
    _, parameters = figure_of(draw_comparison, "t", methods, {}).axes
    assert parameters.get_xscale() == "log"
    assert texts(parameters) == ["22.7M", "900", "0"]
    assert list(parameters.lines[0].get_xdata()) == [22_700_000, 900, 0]


@pytest.mark.filterwarnings("error")
def test_odd_input_draws(tmp_path):
    path = draw_comparison("$t$", {"a$b_c$": entry(0.5, None, 0)}, {"a$b_c$": [0.5]}, tmp_path / "a.png")
    assert path.read_bytes().startswith(PNG)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_matplotlib_loads_when_something_is_drawn_and_pyplot_never(tmp_path):
    code = (
        "import sys; from weightlora.compare.picture import draw_comparison; print('matplotlib' in sys.modules)\n"
        "entry = {'loss': {'mean': 0.5, 'ci': None}, 'trainable_parameters': 1}\n"
        f"draw_comparison('t', {{'a': entry}}, {{}}, {str(tmp_path / 'a.png')!r})\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert fork_server().run("-c", code).stdout.split() == ["False", "False"]
