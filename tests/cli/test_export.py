"""`weightlora export`: what it prints, and its exit codes."""

import json
from dataclasses import replace

import pytest
from exports import saved

from weightlora.cli import build_parser, main
from weightlora.cli.export import describe
from weightlora.export import export_adapter
from weightlora.export.servers import Verdict


def test_a_table_says_what_was_written_and_who_reads_it(tmp_path, capsys):
    assert main(["export", str(saved("a few modules")), str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out.splitlines()
    words = {line.split("  ")[0]: " ".join(line.split()) for line in out}
    assert words["profile"] == "profile portable: 3 adapters, rank 4, float32"
    assert "the adapter itself changes them by" in " ".join(" ".join(out).split())
    assert words["vLLM before 0.32"].endswith("as PEFT does, with --max-lora-rank 8")
    assert "not as PEFT does: it needs v_proj beside model.layers.0.self_attn.q_proj" in words["SGLang"]
    assert out[-1] == f"in {tmp_path / 'out'}"


def test_json_is_one_object_on_stdout(tmp_path, capsys):
    arguments = [
        str(saved("a few modules")),
        str(tmp_path / "out"),
        "--json",
        "--complete-fused",
        "--check",
        "tensors",
    ]
    assert main(["export", *arguments]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["adapters"], found["completed"], found["outputs"]) == (8, 5, None)
    assert all(server["alike"] for server in found["servers"])
    assert captured.err == f"in {tmp_path / 'out'}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "ggfu"], "profile='ggfu' is not known: the nearest is gguf."),
        (["--base", "/no/where"], "the base model /no/where cannot be found ("),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(arguments, message, tmp_path, capsys):
    source = str(saved("gates"))
    capsys.readouterr()  # what saving printed, if this is the first test that asks for it
    assert main(["export", source, str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"weightlora export: {message}") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_adapter_is_one_sentence(tmp_path, capsys):
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no PEFT adapter (no adapter_config.json)" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["complete_fused", "llama_cpp"])
def test_flags_have_both_spellings(flag):
    parser, value = build_parser(), [] if flag == "complete_fused" else ["x"]
    one, other = (
        vars(parser.parse_args(["export", "a", "b", spelling, *value]))[flag]
        for spelling in (f"--{flag}", f"--{flag.replace('_', '-')}")
    )
    assert one == other and one


def test_a_merged_model_is_described_by_its_outputs(tmp_path):
    from weightlora.export import export_adapter

    lines = describe(export_adapter(saved("gates"), tmp_path / "out", "merged"))
    assert list(lines) == ["profile", "outputs"]
    assert lines["profile"] == "merged: the base with the adapter in its weights, float32"


def test_what_was_not_checked_is_not_called_different(tmp_path):
    exported = export_adapter(saved("plain LoRA"), tmp_path / "out", check="tensors")
    servers = (
        Verdict("one", False, "its reading of x was not checked", False),
        Verdict("other", False, "it has no x"),
    )
    lines = describe(replace(exported, servers=servers))
    assert lines["one"] == "not known: its reading of x was not checked"
    assert lines["other"] == "not as PEFT does: it has no x"
