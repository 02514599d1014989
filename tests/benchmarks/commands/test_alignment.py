"""`python -m benchmarks alignment`: complete files, and the choice is made here or is that of an earlier run."""

import json

import pytest
from benchmarks.__main__ import main
from benchmarks.studies.alignment import render_alignment_markdown
from run_directories import write_run


def test_alignment_is_measured_here_and_against_an_earlier_run(tmp_path, own, capsys, check_study):
    arguments = ["alignment", *own, "--select-steps", "3", "--batches", "2", "--rank", "2"]
    with pytest.warns(UserWarning, match="the adapters are chosen after only 3 steps"):
        assert main([*arguments, "--output-dir", str(tmp_path / "a"), "--keep", "4"]) == 0
    output, error = capsys.readouterr()
    assert error == ""
    study = json.loads((tmp_path / "a" / "alignment.json").read_text())
    check_study(study, tmp_path / "a")
    assert len(study["adapters"]) == 13 and sum(adapter["kept"] for adapter in study["adapters"]) == 4
    assert study["chosen_by"] == "update credit" and study["settings"]["keep"] == 4
    page = (tmp_path / "a" / "alignment.md").read_text()
    assert page == render_alignment_markdown(study) and output.startswith(page)

    first = study["adapters"][0]["name"]
    row = {"kind": "module", "score": 0.5, "omega": 1.0, "rank": 2, "scaling": 1.0, "parameters": 9}
    adapters = [{**row, "name": one["name"], "kept": one["name"] == first} for one in study["adapters"]]
    path = write_run(tmp_path / "run") / "selection.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "config": {"selection": "stoiht"}, "adapters": adapters}))
    assert main([*arguments, "--output-dir", str(tmp_path / "b"), "--run", str(tmp_path / "run")]) == 0
    other = json.loads((tmp_path / "b" / "alignment.json").read_text())
    assert other["chosen_by"] == "gate in an earlier run"
    assert [adapter["name"] for adapter in other["adapters"] if adapter["kept"]] == [first]
    assert [a["trace"] for a in other["adapters"]] == [a["trace"] for a in study["adapters"]]

    assert main([*arguments, "--output-dir", str(tmp_path / "c"), "--keep", "14"]) == 2
    assert "keep=14 is more than the model's 13 LoRA adapters" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "1"], "--batches 1 is too small: give at least 2."),
        (["--select-steps", "1"], "--select_steps 1 is too small: give at least 2."),
        (["--learning-rate", "inf"], "--learning_rate inf is not positive and finite"),
        (["--keep", "1.5"], "keep=1.5 is not a fraction"),
        (["--run", "nowhere"], "nowhere does not exist: give the directory of a run."),
    ],
)
def test_bad_settings_are_refused_before_a_model_loads(refused, arguments, message):
    assert message in refused(["alignment", *arguments])
