"""What is said about a comparison: findings that claim no more than the interval allows."""

import json
from types import SimpleNamespace

from rich.console import Console
from stored import result

from weightlora.compare.summary import (
    _costs,
    _findings,
    _missing,
    _missing_rates,
    _mixed,
    _not_learned,
    _notes,
    _step,
    print_summary,
    render_summary,
)


def row(versus, adapters=3):
    loss = {"mean": 0.5, "ci": 0.1}
    costs = {
        "step_seconds_before": 0.2,
        "step_seconds_after": 0.1,
        "peak_gpu_bytes": None,
        "peak_process_bytes": 2**30,
    }
    return {
        "seeds": 3,
        "loss": loss,
        "metric": {"name": "accuracy", "mean": 0.75, "ci": None},
        "trainable_parameters": 1234,
        "vs_random": versus,
        "vs_lora": None,
        "vs_peft_default": None,
        "vs_listed": None,
        "adapters_before": 12,
        "adapters_after": adapters,
        "learning_rate": 1e-3,
        **costs,
    }


def differ(mean, ci):
    return {"mean": mean, "ci": ci, "wins": 2}


def test_a_finding_says_what_the_interval_allows():
    rows = {"better": row(differ(-0.1, 0.05)), "worse": row(differ(0.1, 0.05)), "unsure": row(differ(-0.1, 0.2))}
    rows |= {"once": row(differ(-0.1, None)), "random": row(None)}
    assert _findings(rows) == [
        "better against random: -0.1000 ± 0.0500 in loss; the loss is significantly lower (95 % interval excludes 0).",
        "worse against random: +0.1000 ± 0.0500 in loss; the loss is significantly higher (95 % interval excludes 0).",
        "unsure against random: -0.1000 ± 0.2000 in loss; the difference is not statistically significant (95 % "
        "interval contains 0).",
        "once against random: -0.1000 in loss; there is no interval, because one seed says nothing about the spread "
        "between seeds.",
    ]


def test_each_pair_is_compared_once_and_lists_with_choices_only():
    versus = {f"vs_{name}": differ(-0.1, 0.2) for name in ("random", "lora", "peft_default", "listed")}
    every = {name: row(None) | versus for name in ("weightlora", "lora", "random", "peft-default", "listed", "dora")}
    for name, found in every.items():
        found[f"vs_{name.replace('-', '_')}"] = None
    said = [line.partition(":")[0] for line in _findings(every)]
    others = ("weightlora", "lora", "peft-default", "listed", "dora")
    assert said == [
        *(f"{name} against random" for name in others),
        *(f"{name} against lora" for name in others if name != "lora"),
        "weightlora against peft-default",
        "weightlora against listed",
    ]


def test_runs_of_several_versions_or_machines_are_told():
    machine = {"device": "cpu", "capability": "AVX2", "threads": 1}
    runs = [result(seed=seed, machine=machine | {"threads": seed}) for seed in range(3)]
    assert _mixed(runs) == []
    runs += [result(seed=3, machine=machine | {"device": "H100"}, versions=runs[0].versions | {"torch": "2.13.0"})]
    (note,) = _mixed(runs)
    assert "not made with the same software and hardware (torch 2.13.0 and 2.8.0; device H100 and cpu)" in note


def test_a_rate_without_a_result_is_named():
    comparison = SimpleNamespace(rates={"lora": (5e-4, 1e-3, 2e-3), "random": (1e-3,), "dora": (1e-3, 2e-3)})
    tuned = {"lora": {5e-4: 0.5}, "dora": {1e-3: 0.5, 2e-3: 0.4}}
    assert _missing_rates(comparison, tuned) == [
        "lora has no result at the learning rate 0.001, 0.002: its rate was chosen among the others."
    ]


def test_a_mean_over_some_seeds_says_so():
    comparison = SimpleNamespace(methods=["lora", "random"], seeds=3)
    found = [(SimpleNamespace(method="lora", seed=seed), None) for seed in (0, 2)]
    assert _missing(comparison, found, {"lora": 1e-3, "random": 1e-3}) == [
        "lora has no result at seed 1, so its figures are those of the other seeds: run the same command again, with "
        "lora in --methods and --seeds 3.",
        "random has no result at seed 0, 1, 2: run the same command again, with random in --methods and --seeds 3.",
    ]


def test_a_reference_whose_results_are_missing_is_not_to_be_added():
    rows = {"weightlora": row(None)}
    assert _notes(rows, ["weightlora", "random"]) == ["There is no comparison with lora: add it to --methods."]
    assert _notes(rows, ["weightlora", "random", "lora"]) == []
    assert _notes(rows, ["weightlora"]) == ["There is no comparison with random and lora: add them to --methods."]


def test_one_run_beside_another_program_does_not_change_the_time_of_a_step():
    runs = [result("lora", seed, evidence={"step_seconds_after": 4.5 if seed == 0 else 0.1}) for seed in range(3)]
    assert _costs(runs)["step_seconds_after"] == 0.1 and _costs(runs)["step_seconds_before"] is None


def test_runs_that_hardly_learned_are_named():
    runs = [result("lora", seed, loss, guess_losses={"test": 0.6931}) for seed, loss in enumerate((0.69, 0.4, 0.7))]
    runs += [result("random", 0, 0.6, guess_losses={"test": 0.6931}), result("full", 0, 9.0)]
    assert _not_learned(runs) == [
        "2 of 3 runs of lora hardly learned (seed 0, 2): the loss is at least 95 % of 0.6931, the loss of the best "
        "guess that reads no text. Half the learning rate with a longer warmup, or more steps, may help."
    ]


def test_the_page_and_the_terminal_have_the_same_cells():
    rows = {"weightlora": row(differ(-0.1, 0.05)), "random": row(None, 12)}
    summary = {"task": "cola", "model": "/home/models/tiny", "steps": 300, "rows": {"train": 1000, "test": 50}}
    summary |= {"methods": rows, "tuning": {"random": {"0.001": 0.5}}, "findings": ["So it is."], "notes": []}
    page = render_summary(json.loads(json.dumps(summary)))
    assert page.startswith("# cola: models/tiny\n\n300 steps; rows: train 1,000, test 50.")
    assert "| weightlora | 0.001 | 3 | 0.5000 ± 0.1000 | 0.7500 | -0.1000 ± 0.0500 ▼ (2) |" in page
    assert "| weightlora | 3 of 12 | 1,234 | 200 ms → 100 ms | 1.00 GiB |" in page
    assert "| random | 12 of 12 | 1,234 | 100 ms | 1.00 GiB |" in page and "vs peft-default" not in page
    assert "## Findings\n\n- So it is.\n" in page and "## Notes" not in page
    console = Console(width=160)
    with console.capture() as capture:
        print_summary(summary, console)
    printed = capture.get()
    assert all(text in printed for text in ("-0.1000 ± 0.0500 ▼ (2)", "200 ms → 100 ms", "So it is."))
    assert "half-width of the 95 % t-interval" in printed, "what the signs mean"


def test_the_time_of_a_step_before_the_choice_is_shown_where_there_was_one():
    assert _step(row(None)) == "200 ms → 100 ms"
    assert _step(row(None) | {"step_seconds_before": None}) == "100 ms", "chosen before the first step"
    assert _step(row(None, adapters=12)) == "100 ms"
    assert _step(row(None) | {"step_seconds_after": None}) == ""
