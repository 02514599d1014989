"""`python -m benchmarks tune`: every learning rate and seed of the grid runs."""

from benchmarks.__main__ import main
from benchmarks.commands import progress


def test_every_rate_and_seed_runs(root, capsys, monkeypatch):
    ran = []

    def execute(processes, jobs, on_end, on_step):
        ran.extend(process.name for process in processes)
        for process in processes:
            on_step(process, 0, 0)
            on_end(process, 1.0, None)
        return [(process, "not really run") for process in processes]

    monkeypatch.setattr(progress, "execute", execute)
    arguments = ["--root", str(root), "--tasks", "a", "--methods", "lora", "--grid", "1e-3,2e-3", "--seeds", "2"]
    assert main(["tune", *arguments]) == 1
    assert ran == [f"a/lora lr-{name}" for name in ("0.001", "0.001-seed-1001", "0.002", "0.002-seed-1001")]
    printed = capsys.readouterr().out
    assert (
        "4 runs, 0 of them done" in printed and "a/lora: runs failed, so its learning rate stays as it is" in printed
    )
