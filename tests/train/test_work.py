from pathlib import Path

from recipes import family_arguments

from weightlora.train import parse, prepare

FIRST = "(the first is row 0)"


def test_a_text_longer_than_the_model(world: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta"]
    assert refused(*arguments, "--max_length", 129).startswith(
        "max_length=129 is longer than the model's 128 positions"
    )
    arguments = ["--task", "xsum", "--dataset", world / "xsum", "--model", world / "bart", "--max_target_length", 300]
    assert refused(*arguments).startswith("max_target_length=300 is longer than the model's 128 positions")


def test_inputs_may_be_padded_to_max_length(world: Path, tmp_path: Path):
    for task in ("cola", "squad", "token-classification", "causal-lm", "sst2-verbalised"):
        work = prepare(parse([*family_arguments(world, task, tmp_path), "--pad_to_max_length"])).work
        batch = work.collate([work.train[i] for i in range(2)])
        assert batch["input_ids"].shape == (2, 64), task
