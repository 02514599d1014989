"""What rules would choose from stored evidence, and how the evidence moves."""

from benchmarks.pages.choices import movements, render_choices_markdown
from benchmarks.pages.side import write_pages
from stored import NAMES, result, store


def test_choices_are_told_by_rule_and_step():
    evidence = [{"3": {"credit": scores}} for scores in ([9, 8, 0, 0, 0, 0], [9, 0, 0, 0, 0, 8])]
    runs = [
        result("lora", seed, names=NAMES, sizes=[1] * 6, settings={"keep": 2}, evidence=e)
        for seed, e in enumerate(evidence)
    ]
    (row,) = (line for line in render_choices_markdown(runs).splitlines() if line.startswith("| credit |"))
    assert row == "| credit | 0.33 (0.30) |", "one of three in common; places 0, 1, 0 and 5 of 5"


def test_the_seconds_of_a_probe_are_no_evidence():
    timed = result("probe", 0, names=NAMES, sizes=[1] * 6, evidence={"selection_seconds": 7.2, "train_seconds": 323.0})
    assert render_choices_markdown([timed]) == "" and movements([timed]) == {}


def test_credit_moves_between_thirds_of_the_layers(tmp_path):
    evidence = {"2": {"credit": [1, 0, 0, 1, 2, 0, 9]}, "6": {"credit": [4, 3, 1, 1, 2, 0, 90]}}
    told = {"names": [*NAMES, "pooler"], "sizes": [1] * 7, "settings": {"keep": 2, "select_steps": 2}}
    made = result("lora", kept=NAMES, evidence=evidence, **told)
    store(tmp_path, made)
    (moved,) = movements([made]).values()
    assert moved.edges == [0, 2, 6] and moved.decides_at == 2
    assert moved.shares.T.tolist() == [[0.25, 0.25, 0.5], [6 / 7, 1 / 7, 0]], "gained since the last edge; no pooler"
    write_pages(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "movement.png").read_bytes().startswith(b"\x89PNG")
    assert "(movement.png)" in (tmp_path / "out" / "choices.md").read_text()
