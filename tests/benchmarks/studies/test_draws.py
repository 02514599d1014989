"""The study of draws: which A the probes have, and how much the chosen sets overlap."""

from pathlib import Path

import pytest
from benchmarks.experiments import resolve
from benchmarks.studies import draws
from benchmarks.studies.draws import Draws, study_draws

from weightlora.errors import ConfigError


def test_the_overlap_is_the_mean_over_pairs_of_seeds():
    chosen = [["a", "b"], ["b", "c"], ["a", "b"]]
    assert Draws(False, 0, chosen).overlap == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


@pytest.mark.slow
def test_a_is_shared_by_all_seeds_or_drawn_as_often_as_asked(tmp_path, monkeypatch):
    seen, draw = [], draws._draw_

    def noted(adapters) -> None:
        draw(adapters)
        seen.append(float(adapters[0].factors[0].sum()))
        assert not any(adapter.factors[1].any() for adapter in adapters)

    monkeypatch.setattr(draws, "_draw_", noted)
    monkeypatch.setattr(draws, "_choose", lambda adapters, evidence: [f"{seen[-1]} {len(seen)}"])
    experiment = resolve(Path("benchmarks/quality"), "rotten-tomatoes-all", "lora")
    found = study_draws(experiment, [1, 2], [1, 2], 2, str(tmp_path))
    assert [(one.shared, one.draws) for one in found] == [(True, 0), (False, 0), (False, 1), (False, 2)]
    sums = [[chosen[0].split()[0] for chosen in one.chosen] for one in found]
    assert sums[0][0] == sums[0][1] and all(first != second for first, second in sums[1:])
    # One draw each for the first two rows; then one in each of the two batches, twice.
    assert [int(one.chosen[0][0].split()[1]) for one in found] == [1, 2, 4, 6]
    assert len({*seen}) == len(seen) - 1


def test_one_seed_is_refused():
    with pytest.raises(ConfigError, match=r"seeds=\[7\] is one seed, and an overlap needs two sets"):
        study_draws({}, [7], [1], 1, "")
