from pathlib import Path

import pytest

from weightlora.errors import ConfigError
from weightlora.train.arguments import as_arguments, parse


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_later_files_and_the_command_line_win(tmp_path: Path):
    base = write(tmp_path / "base.yaml", "learning_rate: 1e-3\nrank: 4\ntask: cola\nbf16: false\nseed: 7\n")
    more = write(
        tmp_path / "more.yaml", "rank: 2\ncolumns: {text: phrase}\ntarget_modules: [query, key]\nmodel: null\n"
    )
    recipe = parse(["--config", base, "--config", more, "--seed", "9", "--output_dir", str(tmp_path)])
    assert (recipe.training.learning_rate, recipe.method.rank, recipe.training.seed) == (1e-3, 2, 9)
    assert recipe.data.columns == '{"text": "phrase"}' and recipe.method.target_modules == ["query", "key"]
    given = {"bf16", "columns", "learning_rate", "output_dir", "rank", "seed", "target_modules", "task"}
    assert recipe.given.keys() == given | {"model"} and recipe.given["rank"] == 2


def test_a_base_is_read_first_and_settings_of_the_method_last(tmp_path: Path):
    write(tmp_path / "base.yaml", "learning_rate: 1e-3\nrank: 4\nby_method: {random: {rank: 16}, lora: {rank: 3}}\n")
    text = "base: base.yaml\nlearning_rate: 2e-3\nby_method: {lora: {learning_rate: 8e-4}}\nmethod: lora\n"
    recipe = ["--config", write(tmp_path / "task.yaml", text), "--output_dir", str(tmp_path)]
    chosen = parse(recipe)
    assert (chosen.method.method, chosen.training.learning_rate, chosen.method.rank) == ("lora", 8e-4, 3)
    other = parse([*recipe, "--method", "random"])
    assert (other.method.method, other.training.learning_rate, other.method.rank) == ("random", 2e-3, 16)
    assert parse([*recipe, "--learning_rate=1"]).training.learning_rate == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "has 'learning_rat', which is not a setting: the nearest is learning_rate."),
        ("by_method: {lora: {rnk: 1}}", "by_method of lora has 'rnk', which is not a setting: the nearest is rank."),
        ("rank: many", "argument --rank: invalid int value: 'many'"),
        ("- rank", "is not a mapping"),
        ("rank: [", "is not valid YAML"),
        ("base: bse.yaml", "bse.yaml is not a file"),
        ("base: recipe.yaml", "is its own base"),
        ("base: 5", "has base=5, which is not a file"),
        ("base: [a.yaml]", "has base=['a.yaml'], which is not a file"),
        ("base: 'a\\0b'", "is not a file"),
        ("by_method: 5", "has by_method=5: write a mapping"),
        ("by_method: [lora]", "has by_method=['lora']: write a mapping"),
        ("method: [lora]", "method=['lora'] is not a name"),
        ("target_modules: ['--output_dir=x']", "has '--output_dir=x', which would be another argument"),
        ("3: 4", "has 3, which is not a setting"),
        (
            "rounds: 3",
            "has 'rounds', which is not a setting: it is one of the method_options, so write method_options: {",
        ),
        ("rank: 1\nrank: 2", "'rank' is there twice"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError) as error:
        parse(["--config", write(tmp_path / "recipe.yaml", text)])
    assert message in " ".join(str(error.value).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rat", "1"], "--learning-rat is not an argument: the nearest is --learning_rate."),
        (["--lora_alpha", "8"], "--lora_alpha is not an argument: here, it is --alpha."),
        (["--r", "8"], "--r is not an argument: here, it is --rank."),
        (
            ["--modules_to_save", "lm_head"],
            "--modules_to_save is not an argument: it is a field of PEFT's LoraConfig, so with the method lora write "
            "--method_options '{\"modules_to_save\": ...}', and to choose, call weightlora.select(",
        ),
        (["--learning_rat=1"], "--learning_rat is not an argument: the nearest is --learning_rate."),
        (
            ["--expand", "qr"],
            'not an argument: it is one of the method_options, so write --method_options \'{"expand": ',
        ),
        (["cola"], "'cola' has no --name in front of it: write --name cola."),
        (["x" * 5000], "xxx' has no --name in front of it: write --name xxx"),
        (["--config", "missing.yaml"], "the recipe missing.yaml is not a file."),
        (["--config", "x" * 5000], "is not a file"),
        (["--config"], "argument --config: expected one argument"),
        (["--output_dir", "x", "--eval_strategy", "often"], "often"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: list[str], message: str):
    with pytest.raises(ValueError) as error:
        parse(arguments)
    assert message in str(error.value)


def test_given_arguments_are_read_back_from_a_command_line():
    """A comparison and a sweep hand them to processes of their own."""
    arguments = ["--output_dir", "out", "--report_to", "none", "--accelerator_config", '{"even_batches": false}']
    arguments += ["--lr_scheduler_kwargs", '{"num_cycles": 0.5}', "--class_names", "a b", "--eval_strategy", "steps"]
    recipe = parse(arguments)
    again = parse(as_arguments(recipe.given))
    assert again.given == recipe.given and again.training.report_to == []
    assert again.training.accelerator_config.even_batches is False


def test_a_secret_is_used_and_written_nowhere():
    recipe = parse(["--task", "cola", "--model", "m", "--output_dir", "o", "--hub_token", "hf_secret"])
    assert recipe.training.hub_token == "hf_secret" and "hf_secret" not in str(recipe.given)


def test_names_that_yaml_reads_as_truth_values_are_refused(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("class_names: [no, yes]\n")
    with pytest.raises(
        ConfigError, match=r"^class_names has False, which YAML reads from yes, no, on and off, too: put"
    ):
        parse(["--config", str(tmp_path / "a.yaml")])
    (tmp_path / "a.yaml").write_text("class_names: [null, other]\n")
    with pytest.raises(
        ConfigError, match=r"^class_names has None, which YAML reads from null, ~ and an empty item: put"
    ):
        parse(["--config", str(tmp_path / "a.yaml")])
    (tmp_path / "a.yaml").write_text('class_names: ["no", "yes"]\n')
    assert parse(["--config", str(tmp_path / "a.yaml")]).data.class_names == ["no", "yes"]
