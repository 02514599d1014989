"""Arguments of the Trainer that it would refuse after the first steps, or ignore."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import Seq2SeqTrainingArguments

from weightlora.errors import ConfigError
from weightlora.train import parse
from weightlora.train.training_checks import check_best_metric, check_training

BASE = ("--task", "cola", "--max_steps", "4", "--max_length", "64", "--use_cpu")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prediction_loss_only", "true"], "prediction_loss_only=True leaves the evaluation without the metrics"),
        (["--eval_do_concat_batches", "false"], "eval_do_concat_batches=False leaves the evaluation without"),
        (["--batch_eval_metrics"], "batch_eval_metrics=True leaves the evaluation without the metrics of the task"),
        (["--bf16_full_eval", "true"], "bf16_full_eval=True would save the trained weights in 16 bits"),
        (["--do_eval", "false"], "do_eval=False has no effect on weightlora train, for it always evaluates after"),
        (["--do_predict"], "do_predict=True has no effect on weightlora train, for it writes metrics, and no"),
        (["--label_names", "gold"], "label_names=['gold'] has no effect on weightlora train, for the task says what"),
        (["--report_to", "nowhere"], "report_to='nowhere' is unknown: nowhere is not supported, only azure_ml"),
        (["--report_to", "clearml"], "report_to='clearml' is not ready here: install its package and set it up, or"),
        (
            ["--lr_scheduler_type", "cosine_with_min_lr"],
            "lr_scheduler_type=cosine_with_min_lr cannot be used with lr_scheduler_kwargs=None (One of min_lr or",
        ),
        (["--lr_scheduler_kwargs", "x"], "lr_scheduler_type=linear cannot be used with lr_scheduler_kwargs='x' ("),
        (
            ["--lr_scheduler_kwargs", '{"foo": 1}'],
            "lr_scheduler_type=linear cannot be used with lr_scheduler_kwargs={",
        ),
        (["--dataloader_num_workers", "-1"], "dataloader_num_workers=-1 is too small: give at least 0."),
        (["--class_names", "acceptable,unacceptable"], "has one name: give the names of all classes, with spaces"),
        (["--optim_args", "foo"], "optim_args='foo' must be pairs of name=value, with commas between them."),
        (
            ["--metric_for_best_model", "f2"],
            "metric_for_best_model='f2' is not a metric of this task: choose one of loss,",
        ),
        (["--optim", "galore_adamw"], "optim=galore_adamw cannot be used: "),
        (["--optim", "lomo"], "optim=lomo cannot be used: "),
    ],
)
def test_refused_before_the_model_loads(world: Path, refused, monkeypatch: pytest.MonkeyPatch, more, message: str):
    name = "transformers.integrations.integration_utils.is_clearml_available"
    monkeypatch.setattr(name, lambda: False)
    assert message in refused(*BASE, "--dataset", world / "glue", "--model", world / "deberta", *more)


@pytest.mark.parametrize(
    "more",
    [
        ["--do_train", "--do_eval", "--do_predict", "false"],
        ["--metric_for_best_model", "eval_matthews"],
        ["--metric_for_best_model", "held_out_loss"],
        ["--metric_for_best_model", "runtime"],
        ["--report_to", "none"],
        ["--report_to", "azure_ml"],
        ["--optim_args", "betas=0.9,eps=1e-8"],
        ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr_rate": 0.1}'],
        ["--lr_scheduler_type", "warmup_stable_decay", "--lr_scheduler_kwargs", '{"num_decay_steps": 2}'],
    ],
)
def test_what_a_run_does_anyway_may_be_said(world: Path, no_weights: None, more: list[str]):
    from weightlora.cli import main

    arguments = [*BASE, "--dataset", str(world / "glue"), "--model", str(world / "deberta"), "--dry_run", *more]
    assert main(["train", *arguments]) == 0


def test_a_service_that_is_not_always_listed_is_not_refused(world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("weightlora.train.training_checks.get_available_reporting_integrations", list)
    check_training(Seq2SeqTrainingArguments(report_to=["flyte"]), {})
    with pytest.raises(ConfigError, match="report_to='wandb' is not ready here"):
        check_training(Seq2SeqTrainingArguments(report_to=["wandb"]), {})
    check_training(Seq2SeqTrainingArguments(report_to=["wandb"]), {}, here=False)


def test_a_task_that_generates_has_its_loss_after_the_training_alone(world: Path, refused):
    summaries = ["--task", "xsum", "--dataset", world / "xsum", "--model", world / "bart", "--use_cpu"]
    message = refused(*summaries, "--max_length", "64", "--metric_for_best_model", "held_out_loss")
    assert message.startswith(
        "metric_for_best_model='held_out_loss' is not a metric of this task: choose one of loss,"
    )


def test_smoothing_needs_classes(world: Path, tmp_path: Path, refused):
    scored = ["--task", "stsb", "--dataset", world / "glue", "--model", world / "deberta"]
    message = refused(*scored, "--label_smoothing_factor", "0.1")
    assert message.startswith("--label_smoothing_factor is a setting of text-classification and token-classification")
    (tmp_path / "recipe.yaml").write_text("label_smoothing_factor: 0.1\n")
    message = refused(*scored, "--config", tmp_path / "recipe.yaml")
    assert message == "label_smoothing_factor=0.1 smooths classes, and --task stsb has none: leave it out."


def test_a_plan_may_be_for_a_machine_with_other_packages(world: Path, capsys: pytest.CaptureFixture):
    from weightlora.cli import main

    arguments = [*BASE, "--dataset", str(world / "glue"), "--model", str(world / "deberta"), "--optim", "lomo"]
    assert main(["train", *arguments, "--dry_run"]) == 0
    assert "not known without a GPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "greater"),
    [
        (["perplexity"], False),
        (["eval_token_accuracy"], True),
        (["held_out_loss"], False),
        (["runtime"], False),
        (["samples_per_second"], True),
        (["perplexity", "--greater_is_better", "true"], True),
    ],
)
def test_the_best_perplexity_is_the_lowest(more, greater):
    """Transformers takes all but a loss to be better where it is larger."""
    recipe = parse(["--task", "causal-lm", "--model", "m", "--output_dir", "o", "--metric_for_best_model", *more])
    work = SimpleNamespace(
        reported=("perplexity", "token_accuracy"), units={"token_accuracy": "fraction"}, forced=None
    )
    check_best_metric(recipe, work)
    assert recipe.training.greater_is_better == greater
