from dataclasses import fields

from weightlora.train.methods import METHODS
from weightlora.train.settings import OWN
from weightlora.train.tasks import COLUMNS


def test_no_argument_is_there_twice_and_each_has_a_help():
    every = [field for group in OWN for field in fields(group)]
    assert len({field.name for field in every}) == len(every) and all(field.metadata["help"] for field in every)


def test_the_help_names_each_family_and_each_method():
    said = {field.name: field.metadata["help"] for group in OWN for field in fields(group)}
    assert all(name in said["task"] for name in COLUMNS)
    assert all(name in said["method"] for name in METHODS)
