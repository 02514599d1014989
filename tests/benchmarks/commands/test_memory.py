"""`python -m benchmarks memory`: complete files, nothing overwritten unasked, every set measured once."""

import argparse
import json

import pytest
from benchmarks.__main__ import main
from benchmarks.commands.memory import orders
from benchmarks.studies.memory import render_memory_markdown


def test_memory_is_measured_written_and_printed(tmp_path, own, capsys, check_study):
    directory = tmp_path / "new" / "memory"
    arguments = [
        "memory",
        *own,
        "--counts",
        "0,2,13",
        "--ranks",
        "4,1",
        "--output-dir",
        str(directory),
    ]
    assert main(arguments) == 0
    output, error = capsys.readouterr()
    assert error == ""
    study = json.loads((directory / "memory.json").read_text())
    check_study(study, directory)
    found = [(case["adapters"], case["rank"], case["orders"]) for case in study["cases"]]
    both = ["top", "bottom"]
    assert found == [
        *((count, rank, order) for count, order in ((0, both), (2, ["top"]), (13, both)) for rank in (1, 4)),
        *((2, rank, ["bottom"]) for rank in (1, 4)),
    ]
    page = (directory / "memory.md").read_text()
    assert page == render_memory_markdown(study)
    assert output == f"{page}\nIn {directory}: memory.json, memory.md, memory.png\n"

    (directory / "memory.png").write_text("mine")
    (directory / "memory.json").unlink()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error == (
        f"benchmarks memory: {directory}/memory.md exists already: give another --output_dir, or --overwrite.\n"
    )
    assert (directory / "memory.png").read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert json.loads((directory / "memory.json").read_text()) == study


def test_orders_are_read_once_each_and_others_refused():
    assert orders("bottom, top,bottom") == ["bottom", "top"]
    for text in ("", "top,middle"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a list of top and bottom"):
            orders(text)
