"""What the result files say: hand-computed intervals and differences, nothing doubtful in an average."""

import json
import math

import pytest
from benchmarks.results import load_results, notes
from benchmarks.summary import markdown_table, print_tables, read_summary, render_markdown, summarize, write_summary
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

VERSIONS = {"weightlora": "0.1.0", "torch": "2.8.0", "peft": "0.21.0", "transformers": "5.0.0"}


def result(method="random", seed=0, loss=0.5, *, task="tiny", accuracy=0.75, after=100, kept=None, **changes):
    return {
        "format": 1,
        "task": task,
        "method": method,
        "seed": seed,
        "experiment": {"label": method, "method": method, "learning_rate": 1e-3, "steps": 300},
        "loss": loss,
        "metric": {"name": "accuracy", "value": accuracy},
        "trainable_parameters": {"before": 400, "after": after},
        "kept": kept,
        "versions": VERSIONS,
        **changes,
    }


def runs(method, losses, **changes):
    return [result(method, seed, loss, **changes) for seed, loss in enumerate(losses)]


def write(root, content, at=None):
    text = content if isinstance(content, str) else json.dumps(content)
    at = at or f"{content['task']}/results/{content['method']}/seed-{content['seed']}.json"
    path = root / at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def entry(results, method, task="tiny"):
    return summarize(results)["tasks"][task][method]


def cells(markdown, method):
    (line,) = (line for line in markdown.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_interval_is_the_t_interval():
    # mean 2, standard deviation 1, standard error 1 / sqrt(3), t(0.975; 2) = 4.302653
    loss = entry(runs("a", [1.0, 2.0, 3.0]), "a")["loss"]
    assert loss == {"mean": pytest.approx(2.0), "ci": pytest.approx(2.484138, rel=1e-6)}
    # standard error 0.5, t(0.975; 1) = 12.706205
    assert entry(runs("a", [0.0, 1.0]), "a")["loss"]["ci"] == pytest.approx(6.353102, rel=1e-6)


def test_an_entry_has_exactly_the_documented_keys():
    summary = entry([*runs("a", [0.4, 0.5], after=7), *runs("random", [0.6, 0.6])], "a")
    versus = ["vs_random", "vs_lora", "vs_weightlora"]
    assert list(summary) == ["seeds", "loss", "metric", "trainable_parameters", *versus, "jaccard"]
    assert summary["metric"] == {"name": "accuracy", "mean": 0.75, "ci": 0.0}
    assert (summary["seeds"], summary["trainable_parameters"], summary["vs_lora"]) == (2, 7, None)
    assert summary["vs_random"].keys() == {"mean", "ci", "wins"}


def test_differences_are_paired_by_seed_over_the_common_seeds():
    # differences -0.10, -0.11, -0.08: standard deviation 0.0152753, times 4.302653 / sqrt(3)
    method = runs("a", [0.40, 0.41, 0.45, 0.90])
    reference = [result("random", seed, loss) for seed, loss in ((2, 0.53), (7, 0.1), (0, 0.50), (1, 0.52))]
    versus = entry([*method, *reference], "a")["vs_random"]
    assert versus == {"mean": pytest.approx(-0.29 / 3), "ci": pytest.approx(0.0379459, rel=1e-5), "wins": 3}


def test_wins_count_lower_losses_and_no_ties():
    versus = entry([*runs("a", [0.4, 0.5, 0.6]), *runs("random", [0.5, 0.5, 0.5])], "a")["vs_random"]
    assert versus["wins"] == 1


def test_a_reference_is_not_compared_with_itself_nor_without_a_common_seed():
    results = [*runs("lora", [0.4, 0.5]), *runs("random", [0.5, 0.7]), result("a", 9, 0.3)]
    assert entry(results, "lora")["vs_lora"] is None
    assert entry(results, "random")["vs_lora"]["mean"] == pytest.approx(0.15)
    assert entry(results, "a")["vs_random"] is None


def test_one_seed_has_no_interval_and_the_text_says_why():
    summary = summarize([result("a", 0, 0.4), *runs("random", [0.5, 0.6])])
    alone = summary["tasks"]["tiny"]["a"]
    assert (alone["seeds"], alone["loss"], alone["jaccard"]) == (1, {"mean": 0.4, "ci": None}, None)
    assert alone["vs_random"] == {"mean": pytest.approx(-0.1), "ci": None, "wins": 1}
    markdown = render_markdown(summary)
    assert cells(markdown, "a")[2:] == ["0.4000", "0.7500", "100", "-0.1000 (1)", "", "", ""]
    assert "No interval for a: one seed" in markdown
    assert "There are no results of lora" in markdown


def test_one_common_seed_is_told_from_one_seed():
    summary = summarize([result("a", 0, 0.4), result("a", 5, 0.4), *runs("random", [0.5, 0.6])])
    assert "No interval against random, for there is one common seed: a." in render_markdown(summary)
    assert "No interval for" not in render_markdown(summary)


def test_jaccard_is_the_mean_over_pairs_of_seeds():
    # {a b} {b c}: 1/3; {a b} {a b c}: 2/3; {b c} {a b c}: 2/3
    kept = [["a", "b"], ["c", "b"], ["a", "b", "c"]]
    assert entry([result("m", seed, kept=k) for seed, k in enumerate(kept)], "m")["jaccard"] == pytest.approx(5 / 9)
    assert entry([result("m", seed, kept=[f"x{seed}"]) for seed in range(3)], "m")["jaccard"] == 0
    assert entry([result("m", seed, kept=[]) for seed in range(2)], "m")["jaccard"] == 1
    assert entry([result("m", 0, kept=["a"]), result("m", 1), result("m", 2, kept=["a"])], "m")["jaccard"] is None


def test_methods_come_by_loss_and_parameters_are_averaged():
    summary = summarize(
        [*runs("b", [0.5]), *runs("a", [0.6]), result("c", 0, 0.4, after=10), result("c", 1, 0.4, after=21)]
    )
    assert list(summary["tasks"]["tiny"]) == ["c", "b", "a"]
    assert summary["tasks"]["tiny"]["c"]["trainable_parameters"] == 16
    order = [line.split("|")[1].strip() for line in render_markdown(summary).splitlines() if line.startswith("| ")]
    assert order == ["method", "---", "c", "b", "a"]


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="two results of one seed of a"):
        summarize([result("a", 0), result("a", 0)])
    with pytest.raises(ValueError, match="different metrics: accuracy, f1"):
        summarize([result("a", 0), result("b", 0, metric={"name": "f1", "value": 0.1})])


@given(st.lists(st.floats(0.1, 2), min_size=2, max_size=6), st.floats(-1, 1), st.randoms(use_true_random=False))
def test_a_shift_moves_means_alone_and_order_does_not_matter(losses, shift, random):
    base = [*runs("a", losses), *runs("random", losses[::-1])]
    moved = [*runs("a", [loss + shift for loss in losses]), *runs("random", losses[::-1])]
    random.shuffle(moved)
    before, after = entry(base, "a"), entry(moved, "a")
    for key in ("loss", "vs_random"):
        assert after[key]["mean"] == pytest.approx(before[key]["mean"] + shift, abs=1e-9)
        assert after[key]["ci"] == pytest.approx(before[key]["ci"], abs=1e-8)


@given(st.lists(st.floats(0.1, 2), min_size=1, max_size=5), st.lists(st.floats(0.1, 2), min_size=1, max_size=5))
def test_the_references_see_each_other_mirrored(lora, random):
    methods = summarize([*runs("lora", lora), *runs("random", random)])["tasks"]["tiny"]
    one, other = methods["lora"]["vs_random"], methods["random"]["vs_lora"]
    assert one["mean"] == pytest.approx(-other["mean"])
    assert one["ci"] == (other["ci"] if other["ci"] is None else pytest.approx(other["ci"]))
    assert one["wins"] + other["wins"] <= min(len(lora), len(random))


def test_results_are_read_from_where_they_belong(tmp_path):
    for content in (*runs("b", [0.5] * 11), *runs("a", [0.4]), result("a", task="other")):
        write(tmp_path, content)
    write(tmp_path, result("b"), at="tiny/tuning/b/seed-0.json")
    write(tmp_path, "{", at="tiny/results/b/.seed-3.json.123")
    results, set_aside = load_results(tmp_path)
    assert set_aside == []
    read = [(r["task"], r["method"], r["seed"]) for r in results]
    assert read == [("other", "a", 0), ("tiny", "a", 0), *(("tiny", "b", seed) for seed in range(11))]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (json.dumps(result("b", 1))[:-20], "no complete JSON"),
        ("", "no complete JSON"),
        ([1], "not a result of format 1"),
        (result("b", 1, format=2), "not a result of format 1"),
        (result("b", 1, loss=math.nan), r"loss is missing or malformed \(nan\)"),
        (result("b", 1, loss=math.inf), "loss is missing"),
        (result("b", 1, loss=True), "loss is missing"),
        (result("b", 1, loss="0.4"), "loss is missing"),
        (result("b", 1, kept="layer"), "kept is missing"),
        (result("b", 1, metric=0.75), "metric.name is missing"),
        (result("b", 1, metric={"name": "accuracy", "value": None}), "metric.value is missing"),
        (result("b", 1, trainable_parameters={"before": 1}), "trainable_parameters.after is missing"),
        (result("b", 1, versions=None), "versions is missing"),
        (result("b", 2), "belongs in .*seed-2.json"),
        (result("c", 1), "belongs in .*c.*seed-1.json"),
    ],
)
def test_a_doubtful_file_is_set_aside_and_told(tmp_path, content, reason):
    good = write(tmp_path, result("b", 0, 0.4))
    bad = write(
        tmp_path, content if isinstance(content, str) else json.dumps(content), at="tiny/results/b/seed-1.json"
    )
    results, set_aside = load_results(tmp_path)
    assert [r["seed"] for r in results] == [0]
    assert [path for path, _ in set_aside] == [bad]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(set_aside[0][1])
    summary, remarks = write_summary(tmp_path, tmp_path / "out")
    assert summary["tasks"]["tiny"]["b"]["loss"] == {"mean": 0.4, "ci": None}
    assert len(remarks) == 1 and "seed-1.json" in remarks[0] and str(good.parents[3]) not in remarks[0]
    assert "Set aside, in no average: tiny/results/b/seed-1.json" in (tmp_path / "out" / "summary.md").read_text(
        "utf-8"
    )


def test_runs_of_one_method_with_different_settings_are_refused(tmp_path):
    write(tmp_path, result("a", 0))
    write(tmp_path, result("a", 1, experiment={"label": "a", "method": "a", "learning_rate": 2e-3, "steps": 300}))
    with pytest.raises(ValueError, match=r"seed-0\.json and .*seed-1\.json .*\(learning_rate\): delete .* or rerun"):
        load_results(tmp_path)


def test_a_study_is_compared_with_the_main_runs_of_what_it_varies_and_of_the_references(tmp_path):
    def varied(method):
        return {**result(method)["experiment"], "method": "plus"}

    write(tmp_path, result("plus-2", experiment=varied("plus-2")))
    write(tmp_path, result("lora", loss=0.7))
    main = [result(method, task=task) for method in ("random", "lora", "plus", "top") for task in ("tiny", "other")]
    tasks = read_summary(tmp_path, main=main)[0]["tasks"]
    assert {task: sorted(methods) for task, methods in tasks.items()} == {"tiny": ["lora", "plus", "plus-2", "random"]}
    assert tasks["tiny"]["lora"]["loss"]["mean"] == 0.7, "its own run, not the main comparison's"


def test_the_list_of_seeds_is_no_setting(tmp_path):
    for seed in range(2):
        own = result("a", seed)
        write(tmp_path, {**own, "experiment": {**own["experiment"], "seeds": seed + 3}})
    assert len(load_results(tmp_path)[0]) == 2


def test_notes_tell_what_is_not_alike():
    longer = result("a", 1, experiment={"label": "a", "steps": 600})
    older = result("b", 0, versions={**VERSIONS, "torch": "2.7.0"})
    elsewhere = result("b", 1, machine={"capability": "AVX2"})
    found = notes([*runs("random", [0.5], machine={"capability": "AVX512"}), longer, older, elsewhere])
    assert found == [
        "tiny: the runs used different versions of torch: 2.7.0 (1 runs), 2.8.0 (3 runs).",
        "tiny: the runs used different processors: AVX2 (1 runs), AVX512 (1 runs).",
        "tiny: a and random ran with different settings: steps.",
        "tiny: b is compared with random at 1 of its 2 seeds.",
    ]
    assert notes([*runs("random", [0.5, 0.6]), *runs("b", [0.5, 0.4])]) == []


def test_marks_show_where_an_interval_excludes_zero():
    better, worse = runs("better", [0.40, 0.51]), runs("worse", [0.70, 0.81])
    unsure = runs("unsure", [0.40, 0.70])
    markdown = render_markdown(summarize([*better, *worse, *unsure, *runs("random", [0.50, 0.61])]))
    assert cells(markdown, "better")[5] == "-0.1000 ± 0.0000 ▼ (2)"
    assert cells(markdown, "worse")[5] == "+0.2000 ± 0.0000 ▲ (0)"
    assert cells(markdown, "unsure")[5] == "-0.0050 ± 1.2071 (1)"
    assert cells(markdown, "random")[5:7] == ["", ""]


@given(st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), min_size=1, max_size=4))
def test_no_text_breaks_a_table(rows):
    _, _, *lines = markdown_table(["a", "b", "c"], rows).split("\n")
    assert len(lines) == len(rows)
    for line in lines:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 4
        assert "<" not in line


def test_names_are_escaped():
    markdown = render_markdown(summarize([result("a_b|*c*", task="<t>")]))
    assert "| a\\_b\\|\\*c\\* |" in markdown
    assert "## &#60;t&#62;" in markdown


def test_printed_tables_hold_the_same_cells():
    summary = summarize([*runs("a[b]", [0.4, 0.41]), *runs("random", [0.5, 0.53])])
    console = Console(width=200)
    with console.capture() as capture:
        print_tables(summary, console)
    printed = capture.get()
    assert "a[b]" in printed and "0.4050 ± 0.0635" in printed
    assert "There are no results of lora" in printed


def test_the_summary_is_written_whole(tmp_path):
    for content in (*runs("a", [0.4, 0.5]), *runs("random", [0.6, 0.7]), result("a", task="other")):
        write(tmp_path / "in", content)
    out = tmp_path / "new" / "out"
    summary, remarks = write_summary(tmp_path / "in", out)
    assert sorted(path.name for path in out.iterdir()) == ["other.png", "summary.json", "summary.md", "tiny.png"]
    assert json.loads((out / "summary.json").read_text("utf-8")) == summary
    assert (out / "summary.md").read_text("utf-8") == render_markdown(summary, remarks)
    assert remarks == []


def test_no_results_is_an_error_that_tells_what_was_set_aside(tmp_path):
    write(tmp_path, "{", at="tiny/results/b/seed-1.json")
    with pytest.raises(ValueError, match=r"no results in .*\n.*seed-1\.json: no complete JSON"):
        write_summary(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_of_an_older_version_are_in_no_average(tmp_path):
    for seed, version in enumerate(("0.2.0", "0.10.0", "0.10.0")):
        write(tmp_path, result("a", seed, 0.1 * (seed + 1), versions={**VERSIONS, "weightlora": version}))
    write(tmp_path, result("a", 0, 0.9, task="other", versions={**VERSIONS, "weightlora": "0.2.0"}))
    results, aside = load_results(tmp_path)
    assert [(r["task"], r["seed"]) for r in results] == [("other", 0), ("tiny", 1), ("tiny", 2)], "by task"
    ((path, reason),) = aside
    assert path.name == "seed-0.json" and reason == "of weightlora 0.2.0, and there are results of 0.10.0"
