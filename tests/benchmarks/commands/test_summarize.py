"""`python -m benchmarks summarize`: the tables are printed, and written with the pictures where they belong."""

import json

from benchmarks.__main__ import main
from benchmarks.experiments import plan


def test_the_summary_is_printed_as_json(root, finish, capsys):
    for run in plan(root, None, None, None):
        finish(run)
    assert main(["summarize", "--root", str(root), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["tasks"]) == ["a", "b"] and summary["tasks"]["a"]["k5"]["seeds"] == 2
    assert not (root / "summary.md").exists()
