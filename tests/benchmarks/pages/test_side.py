"""Every folder of experiments in the root has a summary of its own, and headroom its fit and its picture."""

import json
from dataclasses import asdict

from benchmarks.pages import frontier, sizes
from benchmarks.pages.points import SEEDS
from benchmarks.pages.side import side_comparisons_in, write_frontier, write_pages, write_sizes
from pictures import PNG
from stored import NAMES, result, store

from weightlora.costs import Costs


def keep(root, label, seed, loss, kept, **changes):
    """Store a result that says what it kept."""
    made = result(label, seed, loss, **{"names": NAMES, "kept": kept, "after": len(kept)} | changes)
    store(root, made)
    return made


def test_a_side_comparison_has_its_tables_and_headroom_places_the_methods(tmp_path):
    keep(tmp_path, "lora", 0, 0.4, NAMES)
    keep(tmp_path, "top", 0, 0.45, NAMES[-3:], settings={"keep": 3})
    keep(tmp_path / "headroom", "top-2", 0, 0.9, NAMES[-2:])
    for seed in range(12):
        kept = [NAMES[seed % 6], NAMES[(seed + 1 + seed // 6) % 6]]
        own = seed < 6
        place, label = (tmp_path, "random") if own else (tmp_path / "headroom", "random-2")
        keep(place, label, seed, 0.5 + 0.01 * (NAMES[0] not in kept) + 0.001 * seed, kept)
    assert side_comparisons_in(tmp_path) == [tmp_path / "headroom"]
    write_pages(tmp_path, tmp_path / "out")
    out = tmp_path / "out" / "headroom"
    assert {path.name for path in out.glob("tiny-*")} == {"tiny-random-2.md", "tiny-random-2.png"}
    text = (out / "tiny-random-2.md").read_text()
    assert "12 runs of 12 random subsets of 6 adapters" in text
    assert "| lora | 1 | 0.4000 | 0 % | -0.1000 |" in text, "better than every subset"
    assert "| top-2 | 1 | 0.9000 | 100 % | +0.4000 |" in text and "| top |" not in text, "only the same K compares"
    summary = (out / "summary.md").read_text()
    assert "| lora | 1 | 0.4000 |" in summary and "| random | 6 |" in summary, "the main comparison's, to compare with"


def test_where_there_is_nothing_to_say_nothing_is_written(tmp_path):
    keep(tmp_path, "lora", 0, 0.4, NAMES)
    write_pages(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_within_budgets_have_a_page_and_a_picture_beside_the_lists_of_the_main_comparison(tmp_path):
    costs = Costs("step_time", [5, 4, 3, 2, 1, 0], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [0.0] * 6, [0.5] * 6, 10.0)
    (tmp_path / "prices.json").write_text(json.dumps({"names": NAMES, "costs": asdict(costs)}))
    given = {"names": NAMES, "task": frontier.TASKS[0]}
    main = [result(label, seed, 0.4, kept=NAMES, **given) for label in frontier.PLAIN for seed in SEEDS]
    side = [
        result(label, seed, 0.5 + 0.01 * seed, kept=NAMES[-3:], **given)
        for label in frontier.BUDGETS
        for seed in SEEDS
    ]
    write_frontier(side, main, tmp_path, str(tmp_path / "prices.json"))
    text = (tmp_path / "frontier.md").read_text()
    assert "| the probe's best set, budget 0.5 | 0.55 | +0.1200" in text and "| LoRA on all modules | 1.00 |" in text
    assert (tmp_path / "frontier.png").read_bytes().startswith(PNG)


def test_runs_with_few_adapters_have_a_page_and_a_picture(tmp_path):
    task = "rotten-tomatoes-all"
    plan = sizes.PLANS[task]
    made = [
        result(label, seed, 0.4 + (label == "probe-3-rank-8") * (0.1 + 0.01 * seed), task=task)
        for label in plan.labels
        for seed in SEEDS
    ]
    side, main = ([run for run in made if (run.label in plan.plain) == plain] for plain in (False, True))
    write_sizes(side, main, tmp_path)
    text = (tmp_path / "sizes.md").read_text()
    assert "| the probe, rank 8 | +0.0000 ± 0.0000 | +0.1200" in text and f"]({task}-sizes.png)" in text
    assert (tmp_path / f"{task}-sizes.png").read_bytes().startswith(PNG)
