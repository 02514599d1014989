"""The stored runs, as the pages read them."""

from benchmarks.pages.runs import QUALITY, losses_of, pool, runs_in
from benchmarks.results import load_results


def test_a_run_has_what_the_result_says():
    (result,) = [
        result
        for result in load_results(QUALITY)[0]
        if (result.task, result.label, result.seed) == ("imdb", "weightlora", 0)
    ]
    run = pool()["imdb", "weightlora"][0]
    assert (run.loss, run.value, run.metric) == (result.held_out_loss, result.value, "accuracy")
    assert run.parameters == result.adapter_parameters_after == 82_944 and list(run.kept or ()) == result.kept
    assert run.learning_rate == 0.001 and not {"label", "learning_rate"} & run.settings.keys()


def test_the_pool_has_the_studies_too():
    assert set(losses_of("rotten-tomatoes", "weightlora-sgd")) == {0, 1, 2}
    assert len(losses_of("rotten-tomatoes", "random")) == 60
    assert losses_of("imdb", "nothing") == {}
    assert {run.label for run in runs_in("plus")} >= {"plus-rank-4", "lora-rank-4"}
