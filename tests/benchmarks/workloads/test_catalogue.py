"""The benchmark's workloads by name."""

import pytest

from weightlora.errors import ConfigError


def test_an_unknown_task_lists_the_known_ones(job):
    with pytest.raises(ConfigError, match="task 'sst' is unknown: choose one of rotten-tomatoes, imdb, vader-tweets"):
        job("sst")


def test_a_task_runs_the_workload_that_it_names(job):
    made = job("films-long", workload="film-reviews")
    assert made.recipe.data.task == "films-long" and made.config.num_labels == 3
    with pytest.raises(ConfigError, match="workload 'films' is unknown: choose one of rotten-tomatoes, imdb"):
        job("imdb", workload="films")
