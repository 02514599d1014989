"""Arguments of the Trainer that it would refuse after the first steps, or ignore."""

from pathlib import Path

import pytest

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
        (["--report_to", "clearml"], "report_to='clearml' needs its package, which is not installed: install it, or"),
        (
            ["--metric_for_best_model", "f2"],
            "metric_for_best_model='f2' is no metric of this task: choose one of loss,",
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
        ["--report_to", "none"],
    ],
)
def test_what_a_run_does_anyway_may_be_said(world: Path, no_weights: None, more: list[str]):
    from weightlora.cli import main

    arguments = [*BASE, "--dataset", str(world / "glue"), "--model", str(world / "deberta"), "--dry_run", *more]
    assert main(["train", *arguments]) == 0


def test_a_plan_may_be_for_a_machine_with_other_packages(world: Path, capsys: pytest.CaptureFixture):
    from weightlora.cli import main

    arguments = [*BASE, "--dataset", str(world / "glue"), "--model", str(world / "deberta"), "--optim", "lomo"]
    assert main(["train", *arguments, "--dry_run"]) == 0
    assert "not known without a GPU" in capsys.readouterr().out
