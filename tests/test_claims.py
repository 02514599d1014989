"""What README.md and docs/choosing.md say in words about the benchmark's results is what the stored ones show."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from benchmarks.experiments import resolve
from benchmarks.results import load_results
from benchmarks.studies.headroom import fit_membership
from benchmarks.summary import jaccard, paired, read_summary
from benchmarks.tuning import losses_by_rate

QUALITY = Path(__file__).parents[1] / "benchmarks" / "quality"
SMOLLM2 = ("smollm2-sentiment", "smollm2-imdb-lm")
DIVERGED = 0.6
NOTHING_LEARNED = 0.69  # of a classifier that tells two classes apart no better than chance

Summary = dict[str, dict[str, Any]]
Losses = dict[tuple[str, str], dict[int, float]]


@pytest.fixture(scope="module")
def tasks() -> Summary:
    return read_summary(QUALITY)[0]["tasks"]


@pytest.fixture(scope="module")
def losses() -> Losses:
    """Held-out loss by task and label, then by seed; the ablations' are in it."""
    found: Losses = defaultdict(dict)
    for run in load_results(QUALITY)[0] + load_results(QUALITY / "ablations")[0]:
        found[run["task"], run["method"]][run["seed"]] = run["loss"]
    return found


def differences(tasks: Summary, label: str, reference: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [tasks[name][label][f"vs_{reference}"] for name in names]


def compare(losses: Losses, task: str, label: str, reference: str) -> dict[str, Any]:
    """Paired difference between two methods, over the seeds that both have."""
    found = paired(losses[task, label], losses[task, reference])
    assert found is not None, (task, label, reference)
    return found


def with_study(losses: Losses, study: str) -> Losses:
    """The losses, and those of a study beside the ablations; at the same label the study's own."""
    found: Losses = defaultdict(dict, {key: dict(by_seed) for key, by_seed in losses.items()})
    for run in load_results(QUALITY / study)[0]:
        found[run["task"], run["method"]][run["seed"]] = run["loss"]
    return found


def told_apart(difference: dict[str, Any]) -> bool:
    return abs(difference["mean"]) > difference["ci"]


def none_told_apart(found: Iterable[dict[str, Any]]) -> bool:
    return not any(map(told_apart, found))


def runs_of(task: str, label: str, root: Path = QUALITY) -> list[dict[str, Any]]:
    return [run for run in load_results(root)[0] if (run["task"], run["method"]) == (task, label)]


def kept_kinds(task: str, label: str) -> dict[str, float]:
    """Share of the adapters that a method kept, over its seeds, by the name of the module."""
    kinds = Counter(name.rpartition(".")[2] for run in runs_of(task, label) for name in run["kept"])
    return {kind: count / kinds.total() for kind, count in kinds.items()}


def rates(task: str, *labels: str) -> list[float]:
    return [resolve(QUALITY, task, label)["learning_rate"] for label in labels]


def tuned(task: str, label: str) -> dict[float, float]:
    """Validation loss at each learning rate that was tried."""
    runs = map(json.loads, map(Path.read_text, (QUALITY / task / "tuning" / label).glob("lr-*.json")))
    return losses_by_rate(runs)


def at_the_top(task: str, label: str) -> bool:
    """Whether a method's tuned learning rate is the highest that was tried."""
    return rates(task, label) == [max(tuned(task, label))]


def test_learning_rates(tasks: Summary):
    gaps = {task: rates(task, "random", "weightlora", "lora") for task in tasks}
    assert {quarter / all_modules for quarter, _, all_modules in gaps.values()} == {2, 4}
    assert {task: ours / all_modules for task, (_, ours, all_modules) in gaps.items()} == {
        "rotten-tomatoes": 2,
        "vader-tweets": 2,
        "imdb": 4,
        "smollm2-sentiment": 1,
        "smollm2-imdb-lm": 1,
    }
    two = tuned("imdb", "lora")
    assert 0 < two[0.0005] - two[0.00025] < 0.001, "level, and the lower one won"


def test_chance_from_the_start(tasks: Summary, losses: Losses):
    versus = {task: methods["weightlora"]["vs_random"] for task, methods in tasks.items()}
    better = {task for task, found in versus.items() if found["mean"] + found["ci"] < 0}
    assert better == {"rotten-tomatoes", "smollm2-imdb-lm"} and len(versus) == 5
    assert all(found["mean"] - found["ci"] < 0 for found in versus.values()), "worse on none"
    assert (versus["smollm2-sentiment"]["wins"], len(losses["smollm2-sentiment", "weightlora"])) == (7, 15)


def test_chance_after_the_selection_phase(tasks: Summary):
    late = {task: methods["random-late"]["vs_weightlora"] for task, methods in tasks.items()}
    assert sum(found["wins"] for found in late.values()) == 40 - 29 and len(late) == 5
    better = {task for task, found in late.items() if found["mean"] - found["ci"] > 0}
    assert better == {"rotten-tomatoes", "smollm2-imdb-lm"}
    assert {task for task, found in late.items() if found["mean"] < 0} == {"imdb", "smollm2-sentiment"}


def test_how_much_there_is_to_win(losses: Losses):
    nine = runs_of("rotten-tomatoes", "random")
    fit = fit_membership(nine)
    assert (len(nine), round(fit["loss"]["std"], 3)) == (60, 0.009)
    assert max(fit[part]["r2"] for part in ("adapters", "groups", "size")) < 0
    mean = fmean(losses["rotten-tomatoes", "weightlora"].values())
    assert sum(run["loss"] > mean for run in nine) == 54

    study = QUALITY / "headroom"
    five = runs_of("rotten-tomatoes", "random-5", study)
    fit = fit_membership(five)
    assert (len(five), round(fit["loss"]["std"], 3), round(fit["adapters"]["r2"], 2)) == (60, 0.014, 0.24)
    many = [run["loss"] for run in five if sum("query" in name or "key" in name for name in run["kept"]) >= 3]
    rest = [run["loss"] for run in five if run["loss"] not in many]
    assert (len(many), len(rest), round(fmean(many) - fmean(rest), 3)) == (8, 52, 0.018)
    assert Counter(".".join(name.split(".")[4:]) for name in fit["best"]["kept"]) == {
        "attention.self.value": 2,
        "intermediate.dense": 3,
    }
    assert {name.split(".")[3] for name in fit["best"]["kept"]} >= {"0", "5"}, "from the first layer to the last"

    own = with_study(losses, "headroom")
    versus = partial(compare, own, "rotten-tomatoes")
    assert none_told_apart([versus("best-9", "random")])
    first = fit_membership([run for run in nine if run["seed"] < 45])
    assert all(run["kept"] == first["best"]["kept"] for run in runs_of("rotten-tomatoes", "best-9", study))
    best = runs_of("rotten-tomatoes", "best-5", study)
    assert all(run["kept"] == fit["best"]["kept"] for run in best)
    of_random = fmean(run["trainable_parameters"]["after"] for run in five)
    assert round(best[0]["trainable_parameters"]["after"] / of_random, 2) == 1.23
    assert fit["size"]["r2"] < 0.02
    chance = versus("best-5", "random-5")
    assert [round(chance[part], 3) for part in ("mean", "ci", "wins")] == [-0.022, 0.018, 5] and told_apart(chance)
    assert none_told_apart([versus("best-5", "lora")])
    means = {label: fmean(own["rotten-tomatoes", f"{label}-5"].values()) for label in ("best", "weightlora")}
    assert {label: round(mean, 3) for label, mean in means.items()} == {"best": 0.466, "weightlora": 0.487}
    assert round(fmean(own["rotten-tomatoes", "weightlora-paper-5"].values()), 3) == 0.485
    assert none_told_apart(versus(label, "random-5") for label in ("weightlora-5", "weightlora-paper-5"))
    assert [versus(label, "random-5")["wins"] for label in ("weightlora-5", "weightlora-paper-5")] == [3, 3]
    assert [versus(label, "top-5")["wins"] for label in ("weightlora-5", "weightlora-paper-5")] == [5, 5]


def test_a_handful(losses: Losses):
    def of_mlp(runs: list[dict[str, Any]]) -> set[int]:
        return {sum(".attention." not in name for name in run["kept"]) for run in runs}

    study, found = QUALITY / "headroom", with_study(with_study(losses, "rivals"), "headroom")
    for task, folder, rate, factor in (
        ("rotten-tomatoes", study, "", 2),
        ("vader-tweets", QUALITY / "rivals", "-2e-3", 4),
    ):
        labels = (f"credit-60-5-unbounded{rate}", f"weightlora-5-unbounded-5e-4-faster-{factor}", f"credit-60-5{rate}")
        free, one_run, bound = (runs_of(task, label, folder) for label in labels)
        versus = partial(compare, found, task)
        chance = versus(labels[0], f"random-5{rate}")
        assert told_apart(chance) and chance["wins"] == len(free) == len(bound) == 5
        assert none_told_apart([versus(labels[2], f"random-5{rate}"), versus(labels[0], "lora")])
        assert versus(labels[0], labels[2])["wins"] == 5
        assert of_mlp(free) <= {4, 5} and of_mlp(bound) == {1}
        shares = [run["trainable_parameters"]["after"] / 331_776 for run in free]
        assert min(shares) > 0.2 and max(shares) < 0.25, "a fifth to a quarter"
        assert [run["kept"] for run in free] == [run["kept"] for run in one_run]

    anew = compare(found, "rotten-tomatoes", "credit-60-5-unbounded", "random-mlp-5")
    assert [round(anew[part], 3) for part in ("mean", "ci", "wins")] == [-0.010, 0.012, 5]
    anew = compare(found, "vader-tweets", "credit-60-5-unbounded-2e-3", "random-mlp-5-2e-3")
    assert [round(anew[part], 4) for part in ("mean", "ci", "wins")] == [-0.0251, 0.0246, 4]
    assert round(max(found["vader-tweets", "weightlora-5-unbounded-5e-4-faster-4"].values()), 3) == 0.558

    unbounded = runs_of("rotten-tomatoes", "weightlora-5-unbounded", study)
    others = [[name for name in run["kept"] if ".attention." in name] for run in unbounded]
    last = ["bert.encoder.layer.5.attention.output.dense"]
    assert others == [last, [], [], last, last]
    ends = found["rotten-tomatoes", "weightlora-5-unbounded"]
    assert max(ends[seed] for seed in (0, 3, 4)) < 0.4735
    assert [round(ends[seed], 3) for seed in (1, 2)] == [0.484, 0.541]
    low = {name.split(".")[3] for run in unbounded for name in run["kept"] if name not in last}
    assert low == {"0", "1", "2", "3"}

    slow, fast = "weightlora-5-unbounded-5e-4", "weightlora-5-unbounded-5e-4-faster-2"
    assert round(fmean(found["rotten-tomatoes", slow].values()), 3) == 0.473
    assert compare(found, "rotten-tomatoes", fast, slow)["wins"] == 5
    sets = [[run["kept"] for run in runs_of("rotten-tomatoes", label, study)] for label in (slow, fast)]
    assert sets[0] == sets[1]
    scores = [f"credit{how}-5-unbounded" for how in ("-60", "-per-block-30", "-per-block-60", "-per-root-60")]
    means = [fmean(found["rotten-tomatoes", score].values()) for score in scores]
    assert max(means) - min(means) < 0.002 and {len(found["rotten-tomatoes", score]) for score in scores} == {5}
    early = [run["kept"] for run in runs_of("rotten-tomatoes", scores[1], study)]
    assert early == [[f"bert.encoder.layer.{layer}.intermediate.dense" for layer in range(5)]] * 5


def test_lora_on_all_modules(tasks: Summary, losses: Losses):
    versus = {task: methods["weightlora"]["vs_lora"] for task, methods in tasks.items()}
    assert {task for task, found in versus.items() if told_apart(found)} == {"imdb"}
    assert [round(versus["imdb"][part], 3) for part in ("mean", "ci", "wins")] == [-0.035, 0.016, 5]
    ours, other = losses["imdb", "weightlora"], losses["imdb", "lora-5e-4"]
    *close, late = sorted(abs(other[seed] - ours[seed]) for seed in other)
    assert max(close) < 0.011 and late > 0.1 and len(other) == 5
    assert round(max(other.values()), 3) == 0.557


def test_late_choices_from_the_start(tasks: Summary):
    rivals = read_summary(QUALITY / "rivals", main=load_results(QUALITY)[0])[0]["tasks"]
    for reference in ("random", "weightlora"):
        assert none_told_apart(differences(rivals, "credit-60", reference, ("rotten-tomatoes", "vader-tweets")))


def test_other_methods_on_rotten_tomatoes(tasks: Summary, losses: Losses):
    methods = tasks["rotten-tomatoes"]
    assert [methods[label]["vs_random"]["wins"] for label in ("top", "eva", "last-layers")] == [0, 0, 0]
    assert [round(methods["top"][f"vs_{name}"]["mean"], 3) for name in ("random", "weightlora")] == [0.023, 0.033]
    eva = methods["eva"]["vs_weightlora"]
    assert [round(eva[part], 3) for part in ("mean", "ci", "wins")] == [0.045, 0.043, 0] and told_apart(eva)
    assert methods["adalora"]["vs_weightlora"]["wins"] == 4
    assert round(methods["last-layers"]["vs_random"]["mean"], 3) == 0.033
    few, ours = (methods[label]["trainable_parameters"] for label in ("last-layers", "weightlora"))
    assert few / ours == pytest.approx(2 / 3)
    close = ("adalora", "kappa", "weightlora-paper", "grad-norm")
    assert none_told_apart(methods[label]["vs_weightlora"] for label in close)
    for label in ("weightlora-paper", "grad-norm"):
        assert methods[label]["vs_weightlora"]["wins"] == 1
        assert sum(loss > DIVERGED for loss in losses["rotten-tomatoes", label].values()) == 1
    assert max(losses["rotten-tomatoes", "weightlora-paper"].values()) > NOTHING_LEARNED
    overlaps = [methods[label]["jaccard"] for label in ("weightlora-paper", "random")]
    assert [round(overlap, 2) for overlap in overlaps] == [0.16, 0.15]


def test_other_adapters_on_rotten_tomatoes(tasks: Summary, losses: Losses):
    found = {label: losses["rotten-tomatoes", label] for label in tasks["rotten-tomatoes"]}
    assert min(map(len, found.values())) == 5
    versus = partial(compare, losses, "rotten-tomatoes")
    sizes = {label: tasks["rotten-tomatoes"][label]["trainable_parameters"] for label in found}
    relative = {label: sizes[label] / sizes["weightlora"] for label in ("dora", "lokr", "vera", "loha", "lora")}
    assert [round(size, 2) for size in relative.values()] == [4.25, 0.34, 0.36, 8, 4]

    apart = [("dora", "lora"), ("dora", "weightlora"), ("lokr", "weightlora")]
    assert none_told_apart(versus(*pair) for pair in apart)
    assert sorted(loss > 0.51 for loss in found["rslora"].values()) == [False, False, True, True, True]
    assert sum(loss > NOTHING_LEARNED for loss in found["rslora"].values()) == 1
    close = [found["rslora"][seed] - found["weightlora"][seed] for seed in (0, 2)]
    assert max(map(abs, close)) < 0.004
    rslora = tuned("rotten-tomatoes", "rslora")
    assert rslora[0.0005] < min(rslora[0.000125], rslora[0.00025]) and rates("rotten-tomatoes", "rslora") == [0.0005]
    lokr = versus("lokr", "weightlora")
    assert (round(lokr["mean"], 3), lokr["wins"]) == (0.005, 1)

    vera = [versus("vera", label) for label in ("weightlora", "random")]
    assert [(round(other["mean"], 3), other["wins"]) for other in vera] == [(0.024, 0), (0.014, 0)]
    better = [("loha", "weightlora"), ("loha", "lora"), ("full", "weightlora"), ("full", "loha")]
    gains = [versus(*pair) for pair in better]
    assert [round(gain["mean"], 4) for gain in gains] == [-0.0126, -0.0166, -0.0245, -0.0119]
    assert [round(gain["ci"], 3) for gain in gains] == [0.005, 0.011, 0.006, 0.005]
    assert {versus("full", label)["wins"] for label in found if label != "full"} == {5}
    assert versus("loha", "weightlora")["wins"] == versus("loha", "lora")["wins"] == 5
    assert at_the_top("rotten-tomatoes", "loha") and at_the_top("rotten-tomatoes", "lokr")


def test_kappatune_keeps_nine_of_the_mlp(tasks: Summary):
    assert [task for task, methods in tasks.items() if "kappa" in methods] == ["rotten-tomatoes"], "where it has run"
    kappa, ours = (tasks["rotten-tomatoes"][label]["trainable_parameters"] for label in ("kappa", "weightlora"))
    assert kappa / ours == pytest.approx(5 / 3)
    (kept,) = {tuple(run["kept"]) for run in runs_of("rotten-tomatoes", "kappa")}
    assert len(kept) == 9 and not any(".attention." in name for name in kept)


def test_random_sets_with_more_parameters(losses: Losses):
    as_good = [("rotten-tomatoes", label) for label in ("random-mlp", "random-parameters", "weightlora-unbounded")]
    as_good += [("vader-tweets", "random-mlp-1e-3")]
    assert none_told_apart(compare(losses, task, label, "weightlora") for task, label in as_good)
    means = [compare(losses, task, label, "weightlora")["mean"] for task, label in as_good[:3]]
    assert max(*means, 0) - min(*means, 0) < 0.002
    worse = [("rotten-tomatoes", "random-mlp-5"), ("vader-tweets", "random-mlp-5"), ("vader-tweets", "random-mlp")]
    found = [compare(losses, task, label, "weightlora") for task, label in worse]
    assert [difference["wins"] for difference in found] == [0, 1, 0] and all(len(losses[key]) == 5 for key in worse)
    assert [round(found[0][part], 3) for part in ("mean", "ci")] == [0.012, 0.01] and told_apart(found[0])
    assert not told_apart(found[1])

    of_the_mlp = [key for key in (*as_good, *worse) if "mlp" in key[1]]
    assert {task for task, label in losses if "mlp" in label} == {"rotten-tomatoes", "vader-tweets"}, (
        "where it has run"
    )
    sizes: dict[tuple[str, str], set[int]] = {}
    for task, label in (*as_good, *worse):
        runs = runs_of(task, label, QUALITY / "ablations")
        sizes[task, label] = {run["trainable_parameters"]["after"] for run in runs}
        in_the_mlp = not any(".attention." in name for run in runs for name in run["kept"])
        assert in_the_mlp == ((task, label) in of_the_mlp) and len(runs) == 5
    five, nine, default = 5 * 15_360, 9 * 15_360, 82_944
    assert nine / default == 5 / 3
    assert all(sizes[key] == ({five} if key[1].endswith("-5") else {nine}) for key in of_the_mlp)
    assert all(0.95 * nine < size <= nine for size in sizes["rotten-tomatoes", "random-parameters"])
    assert max(sizes["rotten-tomatoes", "weightlora-unbounded"]) <= nine
    main = [rates("vader-tweets", label) for label in ("weightlora", "random")]
    own = [runs_of("vader-tweets", label, QUALITY / "ablations") for label in ("random-mlp-1e-3", "random-mlp")]
    assert [[runs[0]["experiment"]["learning_rate"]] for runs in own] == main


def test_a_module_of_the_mlp_has_more_parameters():
    all_modules = runs_of("rotten-tomatoes", "kappa")[0]
    sizes: dict[bool, set[int]] = defaultdict(set)
    for name, size in zip(all_modules["names"], all_modules["sizes"], strict=True):
        sizes[".attention." in name].add(size)
    assert sizes == {True: {6_144}, False: {15_360}}, "two and a half times as many"


def test_other_methods_on_the_tweets(tasks: Summary):
    methods = tasks["vader-tweets"]
    named = ("top", "eva", "adalora", "weightlora-paper")
    assert [methods[label]["seeds"] for label in named] == [5, 5, 5, 5]
    assert [methods[label]["vs_weightlora"]["wins"] for label in named] == [0, 0, 3, 1]
    assert [round(methods["top"][f"vs_{name}"]["mean"], 3) for name in ("random", "weightlora")] == [0.052, 0.065]
    eva = methods["eva"]["vs_weightlora"]
    assert [round(eva[part], 3) for part in ("mean", "ci", "wins")] == [0.039, 0.035, 0] and told_apart(eva)
    assert methods["eva"]["vs_random"]["wins"] == 1
    assert none_told_apart(methods[label]["vs_weightlora"] for label in ("adalora", "weightlora-paper"))
    assert min(methods, key=lambda label: methods[label]["loss"]["mean"]) == "adalora"
    assert round(methods["weightlora-paper"]["jaccard"], 2) == 0.31


def test_other_methods_on_imdb(tasks: Summary, losses: Losses):
    methods = tasks["imdb"]
    named = ("top", "eva", "adalora", "weightlora-paper")
    assert [methods[label]["seeds"] for label in named] == [5, 5, 5, 5]
    top, eva, adalora, gates = (methods[label]["vs_weightlora"] for label in named)
    assert [found["wins"] for found in (top, eva, adalora, gates)] == [0, 0, 4, 2]
    assert told_apart(top) and round(top["mean"], 3) == 0.041
    assert told_apart(eva) and [round(eva[part], 2) for part in ("mean", "ci")] == [0.15, 0.15]
    assert none_told_apart([adalora, gates]) and [round(adalora[part], 3) for part in ("mean", "ci")] == [-0.02, 0.026]
    assert methods["eva"]["vs_random"]["wins"] == 1
    assert min(methods, key=lambda label: methods[label]["loss"]["mean"]) == "adalora"
    for label, collapsed in {"eva": 2, "weightlora-paper": 2, "random": 1, "weightlora": 0}.items():
        assert sum(loss > NOTHING_LEARNED for loss in losses["imdb", label].values()) == collapsed, label
    ours = losses["imdb", "weightlora"].values()
    assert max(ours) < 0.44 and len(ours) == 10, "it learned at each"


def test_adalora(tasks: Summary):
    found = {task: methods["adalora"]["vs_weightlora"] for task, methods in tasks.items()}
    assert {task for task, difference in found.items() if difference["mean"] > 0} == set(SMOLLM2)
    assert none_told_apart(found.values()) and len(found) == 5
    for task in tasks.keys() - {"smollm2-imdb-lm"}:
        labels = ("adalora", "weightlora")
        theirs, ours = ({run["seed"]: run["metric"]["value"] for run in runs_of(task, label)} for label in labels)
        assert abs(fmean(theirs[seed] - ours[seed] for seed in theirs)) < 0.005, task


def test_other_methods_on_smollm2(tasks: Summary):
    sentiment, language = (tasks[task] for task in SMOLLM2)
    assert [round(language["top"][f"vs_{name}"]["mean"], 3) for name in ("random", "weightlora")] == [0.081, 0.098]
    assert sentiment["top"]["vs_weightlora"]["wins"] == 0
    eva = differences(tasks, "eva", "weightlora", SMOLLM2)
    assert [found["wins"] for found in eva] == [0, 0]
    assert [round(eva[1][part], 4) for part in ("mean", "ci")] == [0.0145, 0.0086]
    adalora = differences(tasks, "adalora", "weightlora", SMOLLM2)
    assert [found["wins"] for found in adalora] == [1, 0]
    assert none_told_apart([*adalora, *differences(tasks, "eva", "random", SMOLLM2)])
    gaps = [rates(task, "adalora", "weightlora") for task in tasks]
    assert {round(high / low) for high, low in gaps} == {10}
    assert [task for task in tasks if at_the_top(task, "adalora")] == ["smollm2-imdb-lm"]


def test_the_papers_gates_on_smollm2(tasks: Summary):
    found = differences(tasks, "weightlora-paper", "weightlora", SMOLLM2)
    assert [difference["wins"] for difference in found] == [2, 0] and none_told_apart(found)
    assert [round(tasks[task]["weightlora-paper"]["jaccard"], 2) for task in SMOLLM2] == [0.62, 0.53]
    for task in SMOLLM2:
        gates, credit = (kept_kinds(task, label) for label in ("weightlora-paper", "weightlora"))
        assert sum(gates[kind] for kind in ("v_proj", "up_proj", "gate_proj")) > 0.6
        assert credit["o_proj"] > gates["o_proj"]


def test_a_lower_rank_on_all_modules(tasks: Summary):
    found = {task: methods["lora-equal"]["vs_weightlora"] for task, methods in tasks.items()}
    assert none_told_apart(found.values()) and len(found) == 5
    assert (tasks["imdb"]["lora-equal"]["seeds"], found["imdb"]["wins"]) == (5, 1)
    assert {task for task, difference in found.items() if difference["mean"] < 0} == set(SMOLLM2)
    means = {label: entry["loss"]["mean"] for label, entry in tasks["smollm2-sentiment"].items()}
    assert min(means, key=lambda label: means[label]) == "lora-equal"
    close = [means[label] for label in ("weightlora", "lora", "random", "random-late")]
    assert max(close) - min(close) < 0.02


def test_a_higher_rank_for_the_winners(tasks: Summary, losses: Losses):
    plus = {task: methods["weightlora-plus"] for task, methods in tasks.items()}
    worse = plus["imdb"]["vs_weightlora"]
    assert [round(worse[part], 3) for part in ("mean", "ci", "wins")] == [0.036, 0.032, 0] and told_apart(worse)
    assert none_told_apart([compare(losses, "imdb", "weightlora-plus", "lora-equal")])
    assert rates("imdb", "weightlora-plus", "weightlora") == [0.0005, 0.001]
    assert tuned("imdb", "weightlora-plus")[0.001] > NOTHING_LEARNED
    assert plus["vader-tweets"]["vs_weightlora"]["wins"] == 1
    gains = [round(plus["rotten-tomatoes"][f"vs_{name}"]["mean"], 3) for name in ("weightlora", "lora")]
    assert gains == [-0.006, -0.01]
    best = losses["rotten-tomatoes", "weightlora-plus"]
    compared = [(label, losses["rotten-tomatoes", label]) for label in tasks["rotten-tomatoes"]]
    lower = Counter(label for label, others in compared for seed in best if others.get(seed, 1) < best[seed])
    assert lower == {"full": 5, "loha": 5, "adalora": 2, "lora-equal": 2, "lokr": 1}
    means = {label: fmean(others.values()) for label, others in compared}
    assert sorted(means, key=lambda label: means[label])[:3] == ["full", "loha", "weightlora-plus"]
    sizes = [tasks["rotten-tomatoes"][label]["trainable_parameters"] for label in ("loha", "weightlora-plus")]
    assert sizes[0] == 2 * sizes[1] and len(best) == 5
    assert none_told_apart(plus[task]["vs_lora"] for task in plus.keys() - {"rotten-tomatoes"})
    assert none_told_apart(differences(tasks, "weightlora-plus", "weightlora", SMOLLM2))
    for task in SMOLLM2:
        assert none_told_apart([compare(losses, task, "weightlora-plus", "lora-equal")])


def test_settings_of_a_higher_rank_for_the_winners(losses: Losses):
    study = load_results(QUALITY / "plus")[0]
    own: Losses = defaultdict(dict)
    for run in study:
        own[run["task"], run["method"]][run["seed"]] = run["loss"]
    assert {(task, len(by_seed)) for (task, _), by_seed in own.items()} == {("rotten-tomatoes", 3)}
    found = {**losses, **own}
    versus = partial(compare, found, "rotten-tomatoes")
    ways = [f"plus-rank-8-{way}" for way in ("random", "restart", "rounds-2", "rounds-3")]
    against_one_round = [versus(way, "weightlora-plus") for way in ways]
    assert none_told_apart(against_one_round) and max(abs(gap["mean"]) for gap in against_one_round) < 0.005
    assert [versus(way, "lora")["wins"] for way in ways] == [3, 2, 3, 3]
    equal = [versus(f"plus-rank-{rank}", f"lora-rank-{rank}") for rank in (1, 2, 4)]
    assert none_told_apart(equal) and max(abs(gap["mean"]) for gap in equal[1:]) < 0.003
    one, other = (found["rotten-tomatoes", f"{label}-rank-1"] for label in ("plus", "lora"))
    gaps = sorted(one[seed] - other[seed] for seed in one)
    assert gaps[0] > 0 and round(gaps[-1], 2) == 0.14
    small = versus("plus-rank-2", "weightlora")
    assert [round(small[part], 3) for part in ("mean", "ci", "wins")] == [0.017, 0.014, 0]
    sizes = {run["method"]: run["trainable_parameters"]["after"] for run in study}
    assert all(sizes[f"plus-rank-{rank}"] == sizes[f"lora-rank-{rank}"] == 41_472 * rank for rank in (1, 2, 4))
    assert sizes["plus-rank-2"] == runs_of("rotten-tomatoes", "weightlora")[0]["trainable_parameters"]["after"]
    main = rates("rotten-tomatoes", "weightlora-plus", "lora")
    assert {run["experiment"]["learning_rate"] for run in study if run["method"].startswith("plus")} == {main[0]}
    assert {run["experiment"]["learning_rate"] for run in study if run["method"].startswith("lora")} == {main[1]}


def test_what_was_tried_and_is_not_better(losses: Losses):
    without = "random-without-query-key"
    compared = [("rotten-tomatoes", without, "random"), ("rotten-tomatoes", "weightlora", without)]
    compared += [("vader-tweets", f"weightlora-{label}", "weightlora") for label in ("5e-4-faster-4", "1e-3-faster-2")]
    for task, one, other in compared:
        found = compare(losses, task, one, other)
        assert none_told_apart([found]), (task, one, other)
        assert len(losses[task, one]) == 10
        assert found["mean"] < 0 or without not in (one, other), "it lies between the two"
    worse = [("rotten-tomatoes", "weightlora-sampled"), ("imdb", "weightlora-sampled")]
    for task, label in [*worse, ("imdb", "weightlora-5e-4-faster-2")]:
        found = compare(losses, task, label, "weightlora")
        assert found["wins"] == 0 and len(losses[task, label]) > 1, (task, label)
    collapsed = [loss > NOTHING_LEARNED for loss in losses["imdb", "weightlora-select-75"].values()]
    assert (sum(collapsed), len(collapsed)) == (1, 3)


def test_other_evidence_than_credit(losses: Losses):
    rivals = load_results(QUALITY / "rivals")[0]
    found = with_study(losses, "rivals")
    versus = partial(compare, found, "rotten-tomatoes")
    worse = [f"{rule}-60" for rule in ("update", "leave-one-out", "gate", "next-credit")] + ["credit-20", "credit-30"]
    close = [f"{rule}-60" for rule in ("gradient", "credit-per-parameter", "credit-times-update")]
    assert {len(found["rotten-tomatoes", label]) for label in (*worse, *close)} == {3}
    gaps = [versus(label, "credit-60") for label in worse]
    assert {gap["wins"] for gap in gaps} == {0}
    assert [round(end(gap["mean"] for gap in gaps), 3) for end in (min, max)] == [0.016, 0.034]
    assert [label for label in worse if versus(label, "random")["wins"] > 0] == ["next-credit-60"]
    gaps = [versus(label, "credit-60") for label in close]
    assert none_told_apart(gaps) and max(abs(gap["mean"]) for gap in gaps) < 0.003

    gradient = {"rotten-tomatoes": (0.73, 0.54, 1), "vader-tweets": (0.84, 0.66, 1), "imdb": (0.60, 0.42, 2)}
    for task, (agreement, credit_agreement, wins) in gradient.items():
        runs = [run for run in rivals if (run["task"], run["method"]) == (task, "by-gradient-per-block")]
        seeds = {run["seed"] for run in runs}
        credit = [run for run in runs_of(task, "weightlora") if run["seed"] in seeds]
        overlaps = [jaccard([run["kept"] for run in chosen]) for chosen in (runs, credit)]
        assert [round(overlap, 2) for overlap in overlaps] == [agreement, credit_agreement] and len(seeds) == 5
        assert compare(found, task, "by-gradient-per-block", "weightlora")["wins"] == wins
        assert {run["experiment"]["learning_rate"] for run in runs} == set(rates(task, "weightlora"))
    tweets = compare(found, "vader-tweets", "by-gradient-per-block", "weightlora")
    assert [round(tweets[part], 3) for part in ("mean", "ci")] == [0.009, 0.007] and told_apart(tweets)


def test_settings(tasks: Summary, losses: Losses):
    versus = partial(compare, losses, "rotten-tomatoes")
    three = ("keep-18", "rank-2", "rounds-2", "rounds-3", "parameters", "select-20", "select-120")
    assert {len(losses["rotten-tomatoes", f"weightlora-{label}"]) for label in three} == {3}
    found = {label: versus(f"weightlora-{label}", "weightlora") for label in three}
    told = {label: [round(found[label][part], 3) for part in ("mean", "ci", "wins")] for label in three}
    assert told["keep-18"] == [-0.005, 0.011, 3]
    assert told["rank-2"] == [0.024, 0.011, 0]
    assert told["select-20"] == [0.026, 0.011, 0]
    assert told["select-120"] == [0.015, 0.024, 0]
    assert none_told_apart(found[label] for label in ("rounds-2", "rounds-3", "parameters"))
    half, rank_2 = versus("weightlora-keep-18", "random-keep-18"), versus("weightlora-rank-2", "random-rank-2")
    assert half["wins"] == 1 and not told_apart(half)
    assert [round(rank_2[part], 3) for part in ("mean", "ci", "wins")] == [-0.004, 0.008, 3]
    runs = runs_of("rotten-tomatoes", "weightlora-parameters", QUALITY / "ablations")
    assert {(len(run["kept"]), run["trainable_parameters"]["after"]) for run in runs} == {(6, 82_944)}
    runs = runs_of("rotten-tomatoes", "weightlora-rank-2", QUALITY / "ablations")
    assert {16 * run["trainable_parameters"]["after"] for run in runs} == {331_776}, "a sixteenth of LoRA's"
    for task, means in {"rotten-tomatoes": [0.485, 0.460], "vader-tweets": [0.496, 0.453]}.items():
        short, default = losses[task, "weightlora-select-30"], losses[task, "weightlora"]
        assert [round(fmean(loss_of[seed] for seed in short), 3) for loss_of in (short, default)] == means
        assert len(short) == 2
    agreement = {task: methods["weightlora"]["jaccard"] for task, methods in tasks.items()}
    assert min(agreement, key=lambda task: agreement[task]) == "imdb"
    assert max(agreement, key=lambda task: agreement[task]) == "smollm2-imdb-lm"


def test_plain_sgd(losses: Losses):
    labels = ("lora-sgd", "weightlora-sgd", "random-sgd")
    found = [tuned("ablations/rotten-tomatoes", label) for label in labels]
    assert [min(loss_at, key=lambda rate: loss_at[rate]) for loss_at in found] == [0.3, 0.3, 1]
    runs = [runs_of("rotten-tomatoes", label, QUALITY / "ablations") for label in labels]
    assert [{run["experiment"]["learning_rate"] for run in of} for of in runs] == [{0.3}, {0.3}, {1}]
    versus = partial(compare, losses, "rotten-tomatoes", "weightlora-sgd")
    assert {len(losses["rotten-tomatoes", label]) for label in labels} == {3}
    all_of_them, chance = versus("lora-sgd"), versus("random-sgd")
    assert [round(all_of_them[part], 3) for part in ("mean", "ci", "wins")] == [0.023, 0.018, 0]
    assert told_apart(all_of_them) and not told_apart(chance)
    assert sum(loss > 0.6 for loss in losses["rotten-tomatoes", "random-sgd"].values()) == 1
    for run in runs[1]:
        layers = [int(name.split(".")[3]) for name in run["kept"]]
        assert sum(layer > 3 for layer in layers) in (5, 6) and min(layers) > 0
