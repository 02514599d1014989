"""Golden runs: stored results that new ones are compared with, figure by figure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import golden
from benchmarks.golden import differences, golden_cases, plan_golden
from benchmarks.methods import ALL_METHODS, lists, probes, ranks, rivals, start, within
from benchmarks.workloads import WORKLOADS

from weightlora.errors import ConfigError
from weightlora.train.result import read_result

PLACE = Path(golden.__file__).parent


def test_the_cases_cover_every_workload_and_method_of_their_commit():
    stored = [read_result(PLACE / f"{case}.json") for case in golden_cases()]
    added = {"rotten-tomatoes-all", "imdb-all", "vader-tweets-all", "film-reviews", "spam", "supersenses"}
    added |= {"products", "editorials", "gemma3-definitions"}
    assert {result.task for result in stored} == set(WORKLOADS) - added
    since = {
        "listed",
        *lists.METHODS,
        *probes.METHODS,
        *ranks.METHODS,
        *rivals.METHODS,
        *start.METHODS,
        *within.METHODS,
    }
    missing = set(ALL_METHODS) - since - {result.method for result in stored}
    assert missing == {"rival"}, "it needs stored evidence, and is `subset` from there on"
    assert any(result.evidence for result in stored)
    assert all(result.seed == 1 and result.commit.startswith("9e5ca01") for result in stored)


def test_a_plan_has_the_settings_of_the_stored_results(tmp_path):
    (run,) = plan_golden(tmp_path, ["rt-weightlora"]).values()
    assert run.experiment == read_result(PLACE / "rt-weightlora.json").settings and run.seed == 1
    assert run.output == tmp_path / "rt-weightlora.json"
    with pytest.raises(ConfigError, match="golden case 'x' is unknown: choose from imdb-lora"):
        plan_golden(tmp_path, ["x"])


def test_a_difference_in_the_last_digit_is_one():
    stored = read_result(PLACE / "rt-weightlora.json")
    assert differences("rt-weightlora", replace(stored, wall_seconds=1.0, machine={})) == []
    metrics = json.loads(json.dumps(stored.metrics))
    metrics["test"]["held_out_loss"] += 1e-16 * 2
    found = differences("rt-weightlora", replace(stored, metrics=metrics, kept=stored.kept[1:]))
    assert [line.split(" was ")[0] for line in found] == ["metrics", "kept"]
