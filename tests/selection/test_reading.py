"""A damaged `selection.json` is one sentence."""

import json

import pytest
from selections import selected

from weightlora.errors import DataError
from weightlora.run import describe_selection
from weightlora.selection.reading import read_values


def write(directory, change) -> None:
    values = describe_selection(selected())
    change(values)
    (directory / "selection.json").write_text(json.dumps(values))


DAMAGE = {
    "no adapters": (lambda values: values.update(adapters=[]), "lists no adapters"),
    "no rows": (lambda values: values.update(adapters=[1]), "lists no adapters"),
    "later": (lambda values: values.update(format=2), "has format 2, and this version reads 1: update weightlora"),
    "no format": (lambda values: values.pop("format"), "has format None, .*: run the selection again"),
    "a name": (lambda values: values["adapters"][1].update(name=3), "adapter 1 has 3 as 'name', and needs a name"),
    "a rank": (lambda values: values["adapters"][0].update(rank=0), "adapter 0 has 0 as 'rank'"),
    "no rank": (
        lambda values: next(row for row in values["adapters"] if row["kept"]).update(rank=None),
        "has None as 'rank', and needs a number, because it is kept",
    ),
    "kept": (lambda values: values["adapters"][0].update(kept="no"), "adapter 0 has 'no' as 'kept'"),
    "no kind": (lambda values: values["adapters"][0].pop("kind"), "adapter 0 has no value as 'kind'"),
    "twice": (lambda values: values["adapters"].append(values["adapters"][0]), "names an adapter twice"),
    "no config": (lambda values: values.pop("config"), "it has no value as 'config'"),
    "no lora": (lambda values: values.pop("lora"), "it has no value as 'lora', and needs an object with a positive r"),
    "costs": (lambda values: values.update(costs={}), "it has {} as 'costs', and needs the costs of a choice"),
    "modules": (lambda values: values["lora"].update(modules_to_save="lm_head"), "as 'lora', and needs .* names"),
    "lora": (lambda values: values.update(lora={"r": 0}), "as 'lora', and needs"),
    "tokens": (lambda values: values["lora"].update(trainable_token_indices={"a": [-1]}), "as 'lora', and needs"),
    "a rank beyond all": (lambda values: values["adapters"][0].update(rank=10**30), "adapter 0 has 1000.* as 'rank'"),
    "a scaling beyond all": (
        lambda values: values["adapters"][0].update(scaling=1e300),
        r"adapter 0 has 1e\+300 as 'scaling', and needs a finite number in the range of float32",
    ),
    "a gate beyond all": (
        lambda values: values["adapters"][0].update(omega=1e300),
        r"adapter 0 has 1e\+300 as 'omega', and needs a finite number in the range of float32",
    ),
    "an alpha beyond all": (lambda values: values["lora"].update(lora_alpha=1e300), "as 'lora', and needs"),
    "phase": (lambda values: values.update(phase="done"), "has 'done' as 'phase'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case, tmp_path):
    change, message = DAMAGE[case]
    write(tmp_path, change)
    with pytest.raises(DataError, match=message):
        read_values(tmp_path)


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(DataError, match="does not exist: give the directory of a run"):
        read_values(tmp_path / "missing")
    with pytest.raises(DataError, match=r"is empty: a run writes selection\.json when its training begins"):
        read_values(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"because it has no selection\.json: give the output_dir of its Trainer\.$"):
        read_values(tmp_path)
    with pytest.raises(DataError, match="is a file: give the directory of the run"):
        read_values(tmp_path / "notes.txt")
    (tmp_path / "selection.json").write_text('{"format": 1,')
    with pytest.raises(DataError, match="is not whole JSON"):
        read_values(tmp_path)


def test_a_training_without_a_choice_is_told_from_a_wrong_directory(tmp_path):
    """`weightlora train --method lora` writes one."""
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"is the directory of a training that chose no adapters: its results are in r"
    ):
        read_values(tmp_path)


def test_the_directory_of_a_comparison_is_read_by_its_command(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="give the output_dir of its Trainer"):
        read_values(tmp_path)
    (tmp_path / "tuning").mkdir()
    with pytest.raises(
        DataError, match=r"of a comparison, not of a run: `weightlora compare --output_dir .* --summarize`"
    ):
        read_values(tmp_path)


def test_a_command_to_paste_quotes_the_directory(tmp_path):
    (directory := tmp_path / "my runs" / "tuning").mkdir(parents=True)
    (directory.parent / "settings.json").write_text("{}")
    with pytest.raises(DataError, match=f"--output_dir '{directory.parent}' --summarize"):
        read_values(directory.parent)
