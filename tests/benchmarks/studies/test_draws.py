"""The study of draws: which A the probes have, and how much the chosen sets overlap."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.experiments import resolve
from benchmarks.studies import draws
from benchmarks.studies.draws import Draws, study_draws

from weightlora.errors import ConfigError

pytestmark = pytest.mark.usefixtures("minilm_is_tiny")


def experiment() -> dict[str, Any]:
    """LoRA on all modules of MiniLM, with few and short texts."""
    few = {"train_examples": 16, "test_examples": 2, "max_length": 8}
    return {**resolve(Path("benchmarks/quality"), "rotten-tomatoes-all", "lora"), **few}


def test_the_overlap_is_the_mean_over_pairs_of_seeds():
    chosen = [["a", "b"], ["b", "c"], ["a", "b"]]
    assert Draws(False, 1, 16, 4, chosen).overlap == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


@pytest.mark.slow
def test_a_is_shared_by_all_seeds_or_drawn_for_each_and_all_rows_count(tmp_path, monkeypatch):
    seen, passes, draw, probe = [], [], draws._draw_, draws.gather

    def noted(adapters) -> None:
        draw(adapters)
        seen.append(float(adapters[0].factors[0].sum()))
        assert not any(adapter.factors[1].any() for adapter in adapters)

    def watched(model, adapters, rule, engine, batches, loss, number) -> None:
        read = list(batches)
        probe(model, adapters, rule, engine, read, loss, number)
        passes.append((rule.rows, rule.score, [len(batch["labels"]) for batch in read]))

    monkeypatch.setattr(draws, "_draw_", noted)
    monkeypatch.setattr(draws, "gather", watched)
    found = study_draws(experiment(), [1, 2], [1, 32], [4], [2], str(tmp_path))
    assert [(one.shared, one.rows) for one in found] == [(True, 1), (False, 1), (False, 32)]
    assert all(len(chosen) == 3 for one in found for chosen in one.chosen)
    first, second = seen[:3], seen[3:]
    assert first[0] == second[0], "shared"
    assert first[1] == first[2] != second[1] == second[2]
    assert [rows for rows, *_ in passes] == [1, 1, 32] * 2
    assert all(sizes == [4, 4] for *_, sizes in passes)
    scores = [score for _, score, _ in passes]
    assert not scores[1].equal(scores[0]) and not scores[1].equal(scores[2])


def test_one_seed_is_refused():
    with pytest.raises(ConfigError, match=r"seeds=\[7\] is one seed, and an overlap needs two sets"):
        study_draws({}, [7], [1], [16], [4], "")


@pytest.mark.slow
def test_every_batch_size_is_probed_with_every_number_of_batches(tmp_path):
    found = study_draws(experiment(), [1, 2], [8], [1, 4], [1, 2], str(tmp_path), shared=False)
    assert [(one.shared, one.batch_size, one.batches) for one in found] == [
        (False, 1, 1), (False, 1, 2), (False, 4, 1), (False, 4, 2)
    ]  # fmt: skip
