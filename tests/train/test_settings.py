from dataclasses import fields

import pytest

from weightlora.errors import ConfigError
from weightlora.train.methods import METHODS
from weightlora.train.settings import OWN, SentenceParser
from weightlora.train.tasks import COLUMNS


def test_no_argument_is_there_twice_and_each_has_a_help():
    every = [field for group in OWN for field in fields(group)]
    assert len({field.name for field in every}) == len(every) and all(field.metadata["help"] for field in every)


def test_the_help_names_each_family_and_each_method():
    said = {field.name: field.metadata["help"] for group in OWN for field in fields(group)}
    assert all(name in said["task"] for name in COLUMNS)
    assert all(name in said["method"] for name in METHODS)


def test_what_does_not_parse_is_an_error_of_ours():
    with pytest.raises(ConfigError, match="expected one argument"):
        parser = SentenceParser()
        parser.add_argument("--keep")
        parser.parse_args(["--keep"])
