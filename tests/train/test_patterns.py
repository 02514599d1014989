from pathlib import Path

import pytest

from weightlora.errors import ConfigError
from weightlora.train import parse, patterns, prepare
from weightlora.train.patterns import check_names, check_patterns, patterns_in

NAMES = ["", "model", "model.layers.0.attention.query_projection_of_the_layer"]


def test_the_expressions_are_those_that_peft_matches():
    options = {"rank_pattern": {"q": 1, "k": 2}, "exclude_modules": ["a", "b"], "layers_pattern": ["h"], "bias": "a+"}
    found = [("target_modules", "all"), ("layers_pattern", "h"), ("rank_pattern", "q"), ("rank_pattern", "k")]
    assert patterns_in("all", options) == found
    assert patterns_in(["q", "k"], {"exclude_modules": "x.*"}) == [("exclude_modules", "x.*")]


@pytest.mark.parametrize("setting", ["target_modules", "rank_pattern"])
@pytest.mark.parametrize("pattern", ["(", "[", "*", "(?P<a>x)(?P<a>y)", "x{99999999999}"])
def test_what_is_no_expression(setting: str, pattern: str):
    with pytest.raises(ConfigError, match=f"{setting}=.* is not a regular expression"):
        check_patterns([(setting, pattern)], NAMES)


def test_an_expression_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patterns, "LIMIT", 1.5)
    with pytest.raises(ConfigError, match=r"rank_pattern='\(\\\\w\+\)\+\$x' takes more than 1.5 seconds"):
        check_patterns(
            [("target_modules", ".*query.*"), ("rank_pattern", r"(\w+)+$x"), ("alpha_pattern", "a*")], NAMES
        )
    check_patterns([("target_modules", r".*\.(query|key)\w*"), ("alpha_pattern", "a*")], NAMES)


def test_one_target_with_dots_is_a_name_if_a_module_has_it_else_an_expression(
    world: Path, tmp_path: Path, refused, capsys
):
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_length", 64]
    base += ["--max_steps", 8, "--method", "lora", "--use_cpu"]

    def adapters(*targets: str) -> int:
        given = [*base, "--output_dir", tmp_path / "plan", "--target_modules", *targets]
        return prepare(parse(list(map(str, given)))).plan.adapters

    assert adapters("self.query_proj") == adapters(r".*\.self\.query_proj") == 2
    assert adapters("self.query_proj", "self.key_proj") == 4 and adapters("all-linear") > 4
    capsys.readouterr()  # of reading the data
    message = refused(*base, "--target_modules", "self.query_pro")
    assert message == (
        "target_modules has 'self.query_pro', which is neither the end of a module's name nor a regular expression "
        "for a whole name: the nearest is self.query_proj."
    )


def test_the_command_refuses_such_expressions(world: Path, refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patterns, "LIMIT", 1.5)
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_length", 64]
    base += ["--max_steps", 8]
    assert "seconds on the names" in refused(*base, "--target_modules", r"([\w.]+)+:")
    assert "is not a regular expression" in refused(*base, "--target_modules", "(")
    options = '{"exclude_modules": "([a-z_.0-9]+)*:"}'
    assert "exclude_modules=" in refused(*base, "--method", "lora", "--method_options", options)


def test_a_target_that_fits_no_module_is_refused():
    names = ["", "model.layers.0.attention.query", "model.layers.0.attention.value", "head"]
    check_names(["query", "attention.value", "model.layers.0.attention.query", "head"], names)
    with pytest.raises(
        ConfigError, match=r"^target_modules has 'valeu', which no .* is named: the nearest is value\.$"
    ):
        check_names(["query", "valeu"], names)
    with pytest.raises(
        ConfigError, match=r"has 'ttention\.query', which no .* is named: the nearest is attention\.query\.$"
    ):
        check_names(["ttention.query"], names)
    with pytest.raises(ConfigError, match=r"has 'gate', which no .* is named: give the end of a module's name\.$"):
        check_names(["gate"], names)
