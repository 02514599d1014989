"""`python -m benchmarks growth`: the figures as a file and as tables."""

import json

from benchmarks.__main__ import main


def test_the_command_writes_the_figures_and_prints_them(tmp_path, capsys):
    path = tmp_path / "growth.json"
    assert main(["growth", "--counts", "2,6", "--rounds", "1", "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert [case["n"] for case in study["cases"]] == [2, 6]
    assert study["versions"]["peft"] and study["settings"] == {"rounds": 1}
    printed = capsys.readouterr().out
    assert "disconnect, s" in printed and "stoiht" in printed
