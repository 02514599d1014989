"""Format 1 becomes format 2 without losing a digit, and ambiguous fields get one meaning."""

import json
from typing import Any

import pytest
from benchmarks.convert import convert, convert_file

from weightlora.errors import DataError
from weightlora.train.result import read_result

OLD: dict[str, Any] = {
    "format": 1,
    "task": "tiny",
    "method": "k5",
    "seed": 3,
    "experiment": {"task": "tiny", "label": "k5", "method": "weightlora", "evaluate_on": "validation", "steps": 10},
    "loss": 0.1 + 0.2,
    "metric": {"name": "perplexity", "value": 1e-17},
    "metrics": {"perplexity": 1e-17, "accuracy": 1 / 3},
    "trainable_parameters": {"before": 40, "after": 10},
    "adapters": {"before": 4, "after": 1},
    "kept": ["a"],
    "wall_seconds": 1.25,
    "peak_memory_bytes": 7,
    "versions": {"weightlora": "0.1.0"},
    "machine": {"capability": "AVX2"},
    "evidence": {"2": {"credit": [1.5]}},
}
SETTINGS = {"task": "squad", "max_steps": 150}
SWEEP = OLD | {
    "experiment": {"task": "ratings", "label": "lora-r8", "method": "lora", "settings": SETTINGS},
    "metric": {"name": "f1", "value": 99.5},
    "metrics": {"f1": 99.5, "exact_match": 98.0},
    "trainable_parameters": {"before": 332546, "after": 332546},
    "machine": {"device": "cpu"},
}


def test_an_experiment_keeps_every_digit(tmp_path):
    path = tmp_path / "tiny" / "results" / "k5" / "seed-3.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(OLD))
    assert convert_file(path)
    result = read_result(path)
    assert (result.method, result.label, result.seed, result.steps) == ("weightlora", "k5", 3, 10)
    assert result.metrics == {"validation": {"held_out_loss": 0.1 + 0.2, "perplexity": 1e-17, "accuracy": 1 / 3}}
    assert result.metric_units == {"held_out_loss": "none", "perplexity": "none", "accuracy": "fraction"}
    assert (result.adapter_parameters_before, result.adapter_parameters_after) == (40, 10)
    assert (result.trainable_parameters_after, result.names, result.commit) == (None, None, None)
    assert result.settings == OLD["experiment"] and result.evidence == OLD["evidence"]
    assert not convert_file(path), "it is of format 2 now"


def test_a_sweep_counted_the_head_and_gave_percent():
    result = convert(SWEEP)
    assert (result.trainable_parameters_after, result.adapter_parameters_after) == (332546, 331776)
    assert result.metric_units["f1"] == "percent" and (result.split, result.steps) == ("validation", 150)
    assert (result.peak_process_bytes, result.peak_gpu_bytes) == (7, None)


@pytest.mark.parametrize(
    "changes", [{"machine": {"device": "NVIDIA"}}, {"experiment": {"settings": {"task": "cola"}}}]
)
def test_what_the_file_does_not_tell_is_not_guessed(changes):
    with pytest.raises(DataError, match="is not one of the stored ones: repeat the run"):
        convert({**SWEEP, **changes})
