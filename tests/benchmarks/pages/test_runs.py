"""The stored runs, as the pages read them."""

from benchmarks.pages.runs import losses_of, runs_in


def test_the_pool_has_the_studies_too():
    assert set(losses_of("rotten-tomatoes", "weightlora-sgd")) == {0, 1, 2}
    assert len(losses_of("rotten-tomatoes", "random")) == 60
    assert losses_of("imdb", "nothing") == {}
    assert {run.label for run in runs_in("plus")} >= {"plus-rank-4", "lora-rank-4"}
