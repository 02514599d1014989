"""What selecting saves, from the stored measurements."""

from benchmarks.decision import SECOND
from benchmarks.pages import costs
from benchmarks.pages.runs import losses_of

from weightlora.compare.statistics import paired


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_savings_has_the_costs_and_every_task():
    found = rows(costs.savings())
    assert found["adapters"] == ["37", "6", "6", "12", "37"]
    variants = costs.stored("speed")["models"]["MiniLM-L6"]["variants"]
    assert found["step time"][1] == f"{variants['after']['over_lora']:.2f}"
    assert [name for name in found if name.startswith("loss, ")] == [
        f"loss, {costs.NEW_TASKS[task]} ({seeds} seeds)" for task, seeds in SECOND.seeds.items()
    ]


def test_significant_differences_from_the_default_are_marked():
    found = rows(costs.savings())
    for task, seeds in SECOND.seeds.items():
        row = found[f"loss, {costs.NEW_TASKS[task]} ({seeds} seeds)"]
        for cell, label in zip(row, costs.COMPARED, strict=True):
            versus = paired(losses_of(task, label), losses_of(task, "probe"))
            if versus is None:
                assert label == "lora-equal" and cell == ""
                continue
            marks = {"▲": versus["mean"] > versus["ci"], "▼": -versus["mean"] > versus["ci"]}
            assert {mark: mark in cell for mark in marks} == marks, (task, label)


def test_quickstart_has_its_numbers():
    number = len(costs.stored("quickstart")["kept"])
    assert rows(costs.quickstart())["adapters"] == ["36", str(number)]


def test_speed_has_every_variant_of_minilm_and_a_column_for_each_model():
    found, models = rows(costs.speed()), costs.stored("speed")["models"]
    assert found["after the choice"][0] == "6" and found["LoRA on all modules"][:2] == ["37", "1.00 (1.00 to 1.00)"]
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
