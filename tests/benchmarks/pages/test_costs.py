"""What selecting saves, from the stored measurements."""

from benchmarks.pages import costs
from benchmarks.pages.runs import QUALITY
from benchmarks.summary import read_summary

SUMMARY = read_summary(QUALITY)[0]["tasks"]


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_savings_has_the_costs_and_every_task():
    found = rows(costs.savings())
    assert found["adapters"] == ["36", "9", "9"]
    variants = costs.stored("speed")["models"]["MiniLM-L6"]["variants"]
    assert found["step time, after the choice"][1] == f"{variants['after']['over_lora']:.2f}"
    assert [name for name in found if name.startswith("loss, ")] == [f"loss, {name}" for name in costs.TASKS.values()]


def test_a_significant_gain_is_marked():
    gains = {name: cells[1].endswith(" ▼") for name, cells in rows(costs.savings()).items() if "loss" in name}
    versus = {name: SUMMARY[task]["weightlora"]["vs_random"] for task, name in costs.TASKS.items()}
    assert gains == {f"loss, {task}": found["mean"] + found["ci"] < 0 for task, found in versus.items()}


def test_quickstart_figures_of_both_formats():
    old = costs.stored("quickstart")
    measured = {name: old[name] for name in ("columns", "test_sentences")}
    new = {"format": 2, "steps": 150, "settings": {"select_steps": 30}, "evidence": measured}
    assert costs.quickstart_figures(new) == costs.quickstart_figures(old)


def test_quickstart_has_its_numbers():
    assert rows(costs.quickstart())["adapters"] == ["36", "9", "36"]


def test_speed_has_every_variant_of_minilm_and_a_column_for_each_model():
    found, models = rows(costs.speed()), costs.stored("speed")["models"]
    assert found["after the choice"][0] == "9" and found["LoRA on all modules"][:2] == ["36", "1.00 (1.00 to 1.00)"]
    full = models["MiniLM-L6"]["variants"]["full"]
    assert found["full fine-tuning"][3] == f"{full['parts']['backward'] * 1000:,.0f}"
    assert found["full fine-tuning"][-2:] == ["", ""] and found["DoRA on all modules"][-1].endswith(" s")
    overhead = found["the selector's share of a step while selecting"]
    assert overhead == [f"{one['summary']['own_overhead']:.3f}" for one in models.values()] and len(models) > 2


def test_metrics_names_the_metric_of_each_task():
    assert [cells[0] for cells in rows(costs.metrics()).values()][2:] == [
        "accuracy",
        "accuracy",
        "pearson",
        "accuracy",
        "perplexity",
    ]


def test_the_memory_of_methods_is_that_of_the_stored_steps():
    found = rows(costs.memory_of_methods())
    variants = costs.stored("speed")["models"]["MiniLM-L6"]["variants"]
    assert found["LoRA on all modules"][2] == "1.00"
    for name, key in (("DoRA on all modules", "dora"), ("after the choice", "after")):
        assert found[name][0] == f"{variants[key]['saved_activation_bytes'] / 1e6:.1f} MB"
