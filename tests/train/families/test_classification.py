import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from recipes import BAD, GOOD, arguments, files_of
from scipy import stats
from sklearn import metrics as sklearn_metrics
from transformers import AutoModelForSequenceClassification

from weightlora.cli import main
from weightlora.train import parse, prepare
from weightlora.train.families.classification import class_loss, score_classes, score_numbers
from weightlora.train.result import read_result

FILMS = [{"text": (GOOD, BAD)[i % 2], "label": ("good", "bad")[i % 2]} for i in range(12)]


def test_text_files_with_names_as_labels(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """CSV and TSV, other column names, and labels that are words."""
    csv, tsv = tmp_path / "train.csv", tmp_path / "dev.tsv"
    csv.write_text("phrase,gold\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in FILMS))
    tsv.write_text("phrase\tgold\n" + "".join(f'"{row["text"]}\t{row["label"]}\n' for row in FILMS))  # a bare quote
    more = ["--columns", '{"text": "phrase", "label": "gold"}', "--learning_rate", "1e-2", "--max_steps", "30"]
    base = arguments(world, "text-classification", "deberta", tmp_path / "out", "--dataset", tmp_path, *more)
    recipe = parse(base)
    job = prepare(recipe)
    assert job.config.id2label == {0: "bad", 1: "good"} and job.plan.rows == {"train": 12, "validation": 12}
    assert main(["train", *base, "--logging_steps", "10"]) == 0
    out = capsys.readouterr().out
    losses = [
        float(line.split("'loss': ")[1].strip("'").split("'")[0].split(",")[0])
        for line in out.splitlines()
        if "'loss'" in line
    ]
    assert len(losses) == 3 and losses[2] < losses[0]
    result = read_result(tmp_path / "out")
    assert result.guess_loss == pytest.approx(np.log(2)) and "hardly learned" not in out


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_checkpoint_of_another_kind_of_problem_learns_classes(world: Path, tmp_path: Path, kind: str):
    model, rows = shutil.copytree(world / "deberta", tmp_path / "model"), tmp_path / "train.jsonl"
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "problem_type": kind}))
    rows.write_text("".join(json.dumps({**row, "text": f"{i} {row['text']}"}) + "\n" for i, row in enumerate(FILMS)))
    given = ("--task", "text-classification", "--model", str(model), "--train_file", str(rows), "--output_dir", "out")
    job = prepare(parse(given))
    batch = job.work.collate([job.work.train[place] for place in range(2)])
    found = AutoModelForSequenceClassification.from_config(job.config).eval()(**batch)
    assert found.loss.item() == pytest.approx(class_loss(batch["labels"], found.logits.detach()), rel=1e-5)


def test_a_label_of_a_csv_file_that_is_no_number_is_named_by_its_row(world: Path, tmp_path: Path, refused):
    """The labels are texts then, and the first one was named."""
    (rows := tmp_path / "rows.csv").write_text(f"text,label\n{GOOD},1.5\n{BAD},2e-1\n{GOOD} x,none\n{BAD} x,4\n")
    message = refused("--task", "regression", "--model", world / "deberta", *files_of(rows))
    assert message.startswith("the label 'none' in row 2 of train")
    rows.write_text(rows.read_text().replace("none", "-3"))
    work = prepare(parse(arguments(world, "regression", "deberta", tmp_path / "out", *files_of(rows)))).work
    assert work.train["labels"][:] == [1.5, 0.2, -3.0, 4.0]
    assert work.guess_losses == {"validation": pytest.approx(np.var([1.5, 0.2, -3.0, 4.0]))}


def test_the_loss_of_a_row_has_no_bound():
    labels, logits = np.array([0, 1, 1]), np.array([[0.0, 100.0], [0.0, 2.0], [1.0, 0.0]])
    expected = [100.0, np.log1p(np.exp(-2.0)), np.log1p(np.exp(1.0))]
    assert class_loss(labels, logits) == pytest.approx(np.mean(expected))
    assert np.isnan(class_loss(labels, logits * np.nan))


def test_glue_metrics_are_scikit_learns_and_scipys():
    generator = np.random.default_rng(0)
    labels, chosen = generator.integers(0, 2, (2, 200))
    expected = {
        "matthews": sklearn_metrics.matthews_corrcoef(labels, chosen),
        "accuracy": np.mean(labels == chosen),
        "f1": sklearn_metrics.f1_score(labels, chosen),
    }
    assert score_classes(("matthews", "accuracy", "f1"), labels, chosen) == pytest.approx(expected)
    true, false = ((labels == 1) & (chosen == 1)).sum(), (labels != chosen).sum()
    assert expected["f1"] == pytest.approx(2 * true / (2 * true + false))
    numbers, predicted = generator.normal(size=(2, 50))
    assert score_numbers(numbers, predicted[:, None]) == {
        "pearson": pytest.approx(stats.pearsonr(numbers, predicted).statistic),
        "spearman": pytest.approx(stats.spearmanr(numbers, predicted).statistic),
    }
    assert score_numbers(numbers, np.ones(50)) == {"pearson": 0, "spearman": 0}


def test_regression_reads_the_names_of_classes_and_not_their_places(world: Path, tmp_path: Path):
    """As it reads them where one file has numbers, and another one classes of the same names."""
    stars = ClassLabel(names=["1", "2", "3"])
    kinds = Features({"text": Value("string"), "label": stars})
    rows = [{"text": GOOD, "label": place % 3} for place in range(6)]
    Dataset.from_list(rows, features=kinds).to_parquet(tmp_path / "train-0.parquet")
    Dataset.from_list([{"text": BAD, "label": 2.5}]).to_parquet(tmp_path / "train-1.parquet")
    Dataset.from_list(rows, features=kinds).to_parquet(tmp_path / "validation.parquet")
    work = prepare(parse(arguments(world, "regression", "deberta", tmp_path / "out", "--dataset", tmp_path))).work
    assert [row["labels"] for row in work.train] == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 2.5]
    assert [row["labels"] for row in work.evaluation["validation"]] == [1.0, 2.0, 3.0] * 2
