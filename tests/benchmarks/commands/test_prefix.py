"""`python -m benchmarks prefix`: the figures as a file and as sentences."""

import json

from benchmarks.__main__ import main


def test_the_command_writes_the_figures_and_prints_them(tmp_path, capsys, monkeypatch):
    from benchmarks.studies import prefix
    from prefixes import examples, upper_bert

    def tiny(texts: int) -> prefix.Task:
        rows = [row.tolist() for row in examples()[:texts]]
        return prefix.Task(upper_bert(3), rows, [row[0] % 2 for row in rows], batch_size=4)

    killed = {
        "killed_after_steps": 1,
        "bytes_found": 2048,
        "first_epoch_after": {"reads": 1, "fills": 1},
        "largest_loss_difference": 0.0,
    }
    monkeypatch.setattr(prefix, "load_minilm", tiny)
    monkeypatch.setattr(prefix, "kill_and_go_on", lambda *_: killed)
    path = tmp_path / "prefix.json"
    assert main(["prefix", "--texts", "8", "--epochs", "3", "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert study["settings"]["texts"] == 8 and study["epochs"]["reads"] == 4 and study["killed"] == killed
    assert study["machine"]["threads"] == 1 and study["versions"]["torch"]
    printed = capsys.readouterr().out
    assert "processor time, without dropout there" in printed and "later epochs: median" in printed
