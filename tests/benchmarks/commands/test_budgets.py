"""`python -m benchmarks budgets`: the figures as a file and as a table."""

import json

from benchmarks.__main__ import main
from benchmarks.speed.models import Subject
from models import BERT_TARGETS, batch, tiny_bert


def test_the_command_writes_the_figures_and_prints_them(tmp_path, capsys, monkeypatch):
    target = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    subject = Subject(tiny_bert(), [batch()], 3, target)
    monkeypatch.setattr("benchmarks.speed.models.MODELS", {"tiny": lambda: subject})
    path = tmp_path / "budgets.json"
    assert main(["budgets", "--models", "tiny", "--rounds", "1", "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert study["models"]["tiny"].keys() == {"step_time", "memory", "rounds", "versions", "machine"}
    path.write_text(json.dumps(study | {"models": {"other": study["models"]["tiny"]}}))
    assert main(["budgets", "--models", "tiny", "--rounds", "1", "--output", str(path)]) == 0
    assert json.loads(path.read_text())["models"].keys() == {"other", "tiny"}
    assert "tiny, memory" in capsys.readouterr().out
    assert main(["budgets", "--models", "big", "--output", str(path)]) == 2
    assert "model 'big' is unknown: choose one of tiny." in capsys.readouterr().err
