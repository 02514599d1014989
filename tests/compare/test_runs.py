"""Which result files count, and what happens to the others."""

import json
from dataclasses import replace

import pytest

from weightlora import __version__
from weightlora.compare.runs import Run, fingerprint, read_results, set_aside
from weightlora.train.result import Result, write_result


@pytest.fixture
def run(tmp_path):
    """A run whose result is there."""
    settings = {"learning_rate": 1e-3, "keep": "0.25"}
    run = Run("lora", 1, "test", False, settings, {"train_file": "abc"}, tmp_path / "lora" / "seed-1.json")
    numbers = {f"{name}_{when}": 5 for name in ("adapters", "adapter_parameters") for when in ("before", "after")}
    unknown = {
        f"{name}_{when}" for name in ("trainable_parameters", "optimizer_state_bytes") for when in ("before", "after")
    }
    unknown |= {"names", "sizes", "kept", "peak_process_bytes", "peak_gpu_bytes", "commit", "plan"}
    result = Result(
        task="t",
        method="lora",
        label="lora",
        seed=1,
        settings=run.record(),
        metric="accuracy",
        metric_units={"accuracy": "fraction"},
        metrics={"test": {"held_out_loss": 0.5, "accuracy": 0.75}},
        train_loss=0.5,
        steps=3,
        wall_seconds=1.0,
        versions={"weightlora": __version__},
        machine={},
        **numbers,
        **dict.fromkeys(unknown),
    )
    write_result(run.output, result)
    return run


def test_a_whole_result_of_these_settings_counts(run):
    assert run.is_done() and set_aside([run]) == []
    ((found, result),) = read_results([run, replace(run, output=run.output.with_name("seed-2.json"))])
    assert found is run and result.held_out_loss == 0.5 and (run.name, run.rate) == ("lora seed 1", 1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"learning_rate": 1e-3, "keep": "3"}},
        {"seed": 2},
        {"data": {"train_file": "other"}},
        {"split": "validation"},
    ],
)
def test_a_result_of_other_settings_is_set_aside(run, changes):
    other = replace(run, **changes)
    assert not other.is_done()
    assert set_aside([other]) == [run.output.with_name("seed-1.json.aside")] and not run.output.exists()


@pytest.mark.parametrize("spoil", ["cut", "version", "format", "nan"])
def test_a_result_that_is_cut_or_old_is_set_aside(run, spoil):
    content = json.loads(run.output.read_text())
    if spoil == "version":
        content["versions"]["weightlora"] = "0.0.1"
    elif spoil == "format":
        content["format"] = 1
    elif spoil == "nan":
        content["metrics"]["test"]["held_out_loss"] = float("nan")
    text = json.dumps(content)
    run.output.write_text(text[:-20] if spoil == "cut" else text)
    assert not run.is_done() and len(set_aside([run])) == 1


def test_a_fingerprint_is_the_sha_256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a").startswith("ba7816bf8f01cfea")


def test_large_weights_are_told_apart_by_their_size_and_ends(tmp_path):
    found = set()
    for number, (size, place) in enumerate([(65 << 20, 5), (65 << 20, (65 << 20) - 5), ((65 << 20) + 1, 5)]):
        with (path := tmp_path / f"{number}.safetensors").open("wb") as file:
            file.truncate(size)
            file.seek(place)
            file.write(b"x")
        found.add(fingerprint(path))
    assert len(found) == 3
