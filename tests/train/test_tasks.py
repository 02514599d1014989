import pytest

from weightlora.errors import ConfigError
from weightlora.train.families import FAMILIES
from weightlora.train.tasks import COLUMNS, TASKS, find_task


def test_the_metrics_of_glue():
    wanted = {
        "cola": ("matthews",),
        "mrpc": ("accuracy", "f1"),
        "qqp": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        **dict.fromkeys(("mnli", "qnli", "rte", "sst2"), ("accuracy",)),
    }
    assert {name: TASKS[name].metrics for name in wanted} == wanted
    assert TASKS["mnli"].evaluation == ("validation_matched", "validation_mismatched")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_family_its_columns_and_metrics(name: str):
    task = find_task(name)
    assert task is TASKS[name] and task.family in FAMILIES
    assert task.columns.keys() <= COLUMNS[task.family].keys() and task.evaluation and task.metrics
    assert len(task.words) in {0, len(task.class_names)} and bool(task.words) == bool(task.prompt)
    assert all("{" + column + "}" in task.prompt for column in ("text",) if task.prompt)


def test_an_unknown_task_is_refused():
    with pytest.raises(ConfigError, match=r"task='xsun' is not known: the nearest is xsum\."):
        find_task("xsun")
    with pytest.raises(ConfigError, match="--task is missing: choose one of text-classification, "):
        find_task(None)
