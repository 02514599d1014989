"""The figures of the README and of the pages in docs are those of the stored results."""

import importlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from weightlora.bench.choices import render_choices_markdown
from weightlora.bench.experiments import resolve, tasks_in
from weightlora.bench.kept import render_kept_markdown
from weightlora.bench.results import load_results
from weightlora.bench.studies import studies_in, write_headroom
from weightlora.bench.summary import paired, read_summary, render_markdown
from weightlora.bench.tuning import preferred

ROOT = Path(__file__).parents[1]
QUALITY = ROOT / "benchmarks" / "quality"


def test_the_tables_are_those_of_the_stored_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    readme = importlib.import_module("readme")
    text = ""
    for page in readme.PAGES:
        text += (there := page.read_text(encoding="utf-8"))
        assert readme.render(there) == there, "run: python benchmarks/readme.py"
    assert all(f"<!-- {name} -->\n" in text for name in readme.TABLES) and "| adapters |" in text
    assert all((ROOT / "docs" / "results" / f"{name}.png").is_file() for name in readme.PICTURES)


def test_the_papers_tables_are_what_ran_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    paper = importlib.import_module("paper")
    here = {name: table._replace(real=tmp_path) for name, table in paper.TABLES.items()}
    monkeypatch.setattr(paper, "TABLES", here)
    page = paper.PAGE.read_text(encoding="utf-8")
    assert paper.render(page) == page, "run: python benchmarks/paper.py"
    assert all(f"<!-- {name} -->\n" in page for name in here)


def test_what_ran_with_the_papers_models_takes_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    paper = importlib.import_module("paper")
    for method, value in (("lora", 0.5), ("weightlora", 0.75)):
        path = tmp_path / "cola" / "results" / f"{method}-r8" / "seed-18.json"
        path.parent.mkdir(parents=True)
        experiment = {"method": method, "settings": {"model": "microsoft/deberta-v3-base"}}
        result = {
            "format": 1,
            "task": "cola",
            "method": f"{method}-r8",
            "seed": 18,
            "experiment": experiment,
            "loss": 1,
        }
        result |= {"metric": {"name": "matthews", "value": value}, "metrics": {"matthews": value}, "kept": None}
        result |= {"trainable_parameters": {"after": 1000}, "versions": {"weightlora": "0.1.0"}}
        path.write_text(json.dumps(result), encoding="utf-8")
    glue, ablation = (paper.fill(paper.TABLES[name]._replace(real=tmp_path)) for name in ("glue", "ablation"))
    assert glue.startswith("**The paper's experiment**, run with microsoft/deberta-v3-base.")
    assert "| lora-r8 | 1 | 1,000 | 50.00 |" in glue and "| weightlora-r8 | 1 | 1,000 | 75.00 |" in glue
    assert "| weightlora-r8 | 1 | 1,000 | 75.00 |" in ablation and "lora-r8 | 1 | 1,000 | 50.00" not in ablation


def test_the_results_in_the_docs_are_the_stored_ones(tmp_path: Path):
    main = load_results(QUALITY)[0]
    for root in (QUALITY, *studies_in(QUALITY)):
        page = ROOT / "docs" / "results" / ("" if root == QUALITY else root.name) / "summary.md"
        text = render_markdown(*read_summary(root, main=main))
        assert page.read_text(encoding="utf-8") == text, "run: make bench-quality"
    choices = (ROOT / "docs" / "results" / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(main), "run: make bench-quality"
    kept = (ROOT / "docs" / "results" / "kept.md").read_text(encoding="utf-8")
    assert kept == render_kept_markdown(main), "run: make bench-quality"
    pages = [path for path in write_headroom(QUALITY, QUALITY / "headroom", tmp_path) if path.suffix == ".md"]
    for page in pages:
        stored = ROOT / "docs" / "results" / "headroom" / page.name
        assert stored.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run: make bench-quality"


def kept_kinds(task: str, label: str) -> dict[str, float]:
    """Share of the adapters that a method kept, over its seeds, by the name of the module."""
    runs = [run for run in load_results(QUALITY)[0] if (run["task"], run["method"]) == (task, label)]
    kinds = Counter(name.rpartition(".")[2] for run in runs for name in run["kept"])
    return {kind: count / kinds.total() for kind, count in kinds.items()}


def test_what_the_text_says_about_the_differences_is_so():
    """README.md and docs/choosing.md, in words: where the choice beats chance, and what is told apart from nothing."""
    tasks = read_summary(QUALITY)[0]["tasks"]
    versus = {task: methods["weightlora"]["vs_random"] for task, methods in tasks.items()}
    better = {task for task, found in versus.items() if found["mean"] + found["ci"] < 0}
    assert better == {"rotten-tomatoes", "smollm2-imdb-lm"} and len(versus) == 5
    assert all(found["mean"] - found["ci"] < 0 for found in versus.values())

    losses: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for run in load_results(QUALITY)[0] + load_results(QUALITY / "ablations")[0]:
        losses[run["task"], run["method"]][run["seed"]] = run["loss"]
    best = losses["rotten-tomatoes", "weightlora-plus"]
    compared = [(label, losses["rotten-tomatoes", label]) for label in tasks["rotten-tomatoes"]]
    lower = [label for label, others in compared for seed in best if others.get(seed, 1) < best[seed]]
    assert sorted(lower) == ["adalora"] * 2 + ["lora-equal"] * 2
    others = {label: tasks["rotten-tomatoes"][label] for label in ("top", "eva", "adalora", "weightlora-paper")}
    assert [others[label]["vs_random"]["wins"] for label in ("top", "eva")] == [0, 0]
    assert [round(others["top"][f"vs_{name}"]["mean"], 3) for name in ("random", "weightlora")] == [0.023, 0.033]
    assert abs(others["adalora"]["vs_weightlora"]["mean"]) < others["adalora"]["vs_weightlora"]["ci"]
    assert others["weightlora-paper"]["vs_weightlora"]["wins"] == 1
    assert max(losses["rotten-tomatoes", "weightlora-paper"].values()) > 0.69
    rivals = read_summary(QUALITY / "rivals", main=load_results(QUALITY)[0])[0]["tasks"]
    apart = [rivals[task]["credit-60"] for task in ("rotten-tomatoes", "vader-tweets")]
    differences = [entry[f"vs_{name}"] for entry in apart for name in ("random", "weightlora")]
    differences.append(others["weightlora-paper"]["vs_weightlora"])
    assert all(abs(found["mean"]) < found["ci"] for found in differences)
    overlaps = [tasks["rotten-tomatoes"][label]["jaccard"] for label in ("weightlora-paper", "random")]
    assert [round(overlap, 2) for overlap in overlaps] == [0.16, 0.15]
    small = {task: tasks[task] for task in ("smollm2-sentiment", "smollm2-imdb-lm")}
    gates = [methods["weightlora-paper"] for methods in small.values()]
    assert [(round(entry["jaccard"], 2), entry["vs_weightlora"]["wins"]) for entry in gates] == [(0.62, 2), (0.53, 0)]
    assert all(abs(entry["vs_weightlora"]["mean"]) < entry["vs_weightlora"]["ci"] for entry in gates)
    eva, adalora = ([methods[label]["vs_weightlora"] for methods in small.values()] for label in ("eva", "adalora"))
    assert [found["wins"] for found in eva] == [0, 0]
    assert [round(eva[1][part], 4) for part in ("mean", "ci")] == [0.0145, 0.0086]
    assert [found["wins"] for found in adalora] == [2, 0]
    told = [*adalora, *(methods["eva"]["vs_random"] for methods in small.values())]
    assert all(abs(found["mean"]) < found["ci"] for found in told)
    rates = [[resolve(QUALITY, task, m)["learning_rate"] for m in ("adalora", "weightlora")] for task in small]
    rates.append([resolve(QUALITY, "rotten-tomatoes", m)["learning_rate"] for m in ("adalora", "weightlora")])
    assert {round(high / low) for high, low in rates} == {5, 10}
    for task in small:
        kinds = {label: kept_kinds(task, label) for label in ("weightlora-paper", "weightlora")}
        widening = sum(kinds["weightlora-paper"][kind] for kind in ("v_proj", "up_proj", "gate_proj"))
        assert widening > 0.6 and kinds["weightlora"]["o_proj"] > kinds["weightlora-paper"]["o_proj"]
    far = [round(small["smollm2-imdb-lm"]["top"][f"vs_{name}"]["mean"], 3) for name in ("random", "weightlora")]
    assert far == [0.081, 0.098] and small["smollm2-sentiment"]["top"]["vs_weightlora"]["wins"] == 0
    late = {
        task: methods["random-late"]["vs_weightlora"] for task, methods in tasks.items() if "random-late" in methods
    }
    assert sum(found["wins"] for found in late.values()) == 35 - 28 and len(late) == 5
    assert {task for task, found in late.items() if found["mean"] - found["ci"] > 0} == better
    assert {task for task, found in late.items() if found["mean"] < 0} == {"smollm2-sentiment"}
    assert (versus["smollm2-sentiment"]["wins"], len(losses["smollm2-sentiment", "weightlora"])) == (7, 15)

    plus = {task: methods["weightlora-plus"] for task, methods in tasks.items() if "weightlora-plus" in methods}
    assert plus.keys() == tasks.keys() - {"imdb"} and plus["vader-tweets"]["vs_weightlora"]["wins"] == 1
    equal = {task: tasks[task]["lora-equal"]["vs_weightlora"] for task in plus}
    differences = [*equal.values(), *(plus[task]["vs_lora"] for task in plus.keys() - {"rotten-tomatoes"})]
    for task in ("smollm2-imdb-lm", "smollm2-sentiment"):
        against = paired(losses[task, "weightlora-plus"], losses[task, "lora-equal"])
        differences += [plus[task]["vs_weightlora"], against]
    assert all(abs(found["mean"]) < found["ci"] for found in differences)
    means = {label: entry["loss"]["mean"] for label, entry in tasks["smollm2-sentiment"].items()}
    assert min(means, key=means.get) == "lora-equal"
    close = [means[label] for label in ("weightlora", "lora", "random", "random-late")]
    assert max(close) - min(close) < 0.02
    assert {task for task, found in equal.items() if found["mean"] < 0} == {"smollm2-imdb-lm", "smollm2-sentiment"}
    gains = [round(plus["rotten-tomatoes"][f"vs_{name}"]["mean"], 3) for name in ("weightlora", "lora")]
    assert gains == [-0.006, -0.01]

    without, faster = "random-without-query-key", ("weightlora-5e-4-faster-4", "weightlora-1e-3-faster-2")
    same = [("rotten-tomatoes", without, "random"), ("rotten-tomatoes", "weightlora", without)]
    same += [("vader-tweets", label, "weightlora") for label in faster]
    for task, one, other in same:
        found = paired(losses[task, one], losses[task, other])
        assert found is not None and abs(found["mean"]) < found["ci"], (task, one, other)
        assert len(losses[task, one]) == 10
        assert found["mean"] < 0 or without not in (one, other), "it lies between the two"
    worse = [("rotten-tomatoes", "weightlora-sampled"), ("imdb", "weightlora-sampled")]
    for task, label in [*worse, ("imdb", "weightlora-5e-4-faster-2")]:
        found = paired(losses[task, label], losses[task, "weightlora"])
        assert found is not None and found["wins"] == 0 and len(losses[task, label]) > 1, (task, label)
    collapsed = [loss > 0.69 for loss in losses["imdb", "weightlora-select-75"].values()]
    assert (sum(collapsed), len(collapsed)) == (1, 3)


def test_every_method_runs_at_the_rate_that_its_tuning_prefers():
    tuned = {path.parent for path in QUALITY.glob("*/tuning/*/lr-*.json")}
    assert tuned
    for folder in tuned:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("lr-*.json")]
        rate = preferred(runs)
        assert resolve(QUALITY, folder.parents[1].name, folder.name)["learning_rate"] == rate, folder


def test_chance_after_the_selection_phase_differs_from_the_default_in_the_choice_alone():
    for task in tasks_in(QUALITY):
        late, default = (resolve(QUALITY, task, label) for label in ("random-late", "weightlora"))
        assert late.pop("options") == {"selection": "random"} and default.pop("options") == {}
        assert {**late, "label": None, "seeds": None} == {**default, "label": None, "seeds": None}, task
