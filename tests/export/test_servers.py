"""What each server makes of an adapter, by its restated rule: the source is misread, the exports are not."""

from dataclasses import replace

import pytest
from exports import CASES, EXPERTS_AND_HEADS, saved

from weightlora.export.groups import complete
from weightlora.export.peft_layout import write_compact, write_portable
from weightlora.export.servers import SERVERS, verdicts, vllm_rank
from weightlora.export.source import read_source

NEW, OLDER, OLD, SGLANG, TENSORRT, LLAMA = (server.name for server in SERVERS[1:])
PLAIN = [name for name in CASES if name not in {*EXPERTS_AND_HEADS, "an embedding"}]


def verdict(source, heads=()):
    found = verdicts(source.config, source.pairs, heads)
    return {one.server: one for one in found}


def alike(source, heads=()):
    return {name for name, one in verdict(source, heads).items() if one.alike}


EVERY = {server.name for server in SERVERS}
PEFT = SERVERS[0].name


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("plain LoRA", EVERY),
        ("mixed ranks", {PEFT, NEW, OLDER, TENSORRT, LLAMA}),  # one alpha: alpha / rank is what PEFT computes
        ("gates", {PEFT, NEW, OLDER}),
        ("rsLoRA with gates and ranks", {PEFT, NEW, OLDER}),
        ("an embedding", {PEFT, LLAMA}),
        ("experts", {PEFT}),
    ],
)
def test_who_reads_the_source_as_peft_does(name, servers):
    assert alike(read_source(saved(name))) == servers


@pytest.mark.parametrize(
    ("names", "server", "note"),
    [
        (["transformer.h.0.attn.c_attn"], SGLANG, "it leaves out transformer.h.0.attn.c_attn, which is in no layer"),
        (
            ["first.layers.0.mlp.down_proj", "second.layers.0.mlp.down_proj"],
            SGLANG,
            "for modules of the same layers",
        ),
        (["model.layers.0.mlp.down_proj", "lm_head"], TENSORRT, "it leaves out lm_head"),
        *(
            (["model.layers.0.mlp.down_proj", name], server, "that read images or audio")
            for name in ("model.vision_tower.layers.0.mlp.fc1", "model.multi_modal_projector.linear_1")
            for server in (NEW, OLDER, OLD, SGLANG, TENSORRT, LLAMA)
        ),
        *(
            ([name], server, f"its reading of encoders, such as {name}, was not checked")
            for name in (
                "bert.encoder.layer.0.attention.self.query",
                "distilbert.transformer.layer.0.attention.q_lin",
                "model.encoder.layers.0.self_attn.q_proj",
                "decoder.block.0.layer.0.SelfAttention.q",
            )
            for server in (NEW, OLDER, OLD, SGLANG, TENSORRT, LLAMA)
        ),
    ],
)
def test_names_that_a_server_leaves_out_or_mixes_are_told(names, server, note):
    source = read_source(saved("plain LoRA"))
    pairs = [replace(pair, name=name) for pair, name in zip(source.pairs, names, strict=False)]
    found = verdict(replace(source, pairs=pairs))
    assert not found[server].alike and note in found[server].note
    assert found[PEFT].alike


@pytest.mark.parametrize(
    "names",
    [
        ["self_attn.dense", "mlp.fc1", "mlp.fc2"],  # Phi
        ["self_attn.qkv_proj", "mlp.gate_up_proj"],  # Phi-3
        ["mlp.c_fc", "mlp.c_proj"],  # StarCoder2
        ["self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"],  # DeepSeek
        ["mlp.experts.0.down_proj"],  # as Transformers 4 kept them
    ],
)
def test_modules_that_a_server_was_not_checked_for_are_told(names, tmp_path):
    source = read_source(saved("plain LoRA"))
    pairs = [replace(pair, name=f"model.layers.0.{name}") for pair, name in zip(source.pairs, names, strict=False)]
    found = verdict(replace(source, pairs=pairs))
    for server in (SGLANG, TENSORRT):
        assert found[server] == (server, False, f"its reading of {pairs[0].name} was not checked", False)
    assert found[PEFT].alike and found[NEW].alike != ("experts" in names[0])


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.gate",
        "model.layers.0.mlp.router",
        "model.layers.0.mlp.experts.0.down_proj",
        "lm_head",
        "embed_out",
    ],
)
def test_vllm_was_not_checked_for_what_some_of_its_models_leave_out_or_refuse(name):
    source = read_source(saved("plain LoRA"))
    found = verdict(replace(source, pairs=[replace(source.pairs[0], name=name)]))
    for server in (NEW, OLDER, OLD):
        assert not found[server].alike and not found[server].checked and name in found[server].note


@pytest.mark.parametrize("left", ["gate_up_proj", "down_proj"])
def test_vllm_wants_both_parameters_of_the_experts_of_a_layer(left):
    source = read_source(saved("experts"))
    assert "leaves out experts" in verdict(source)[NEW].note and not verdict(source)[NEW].checked
    pairs = [pair for pair in source.pairs if not pair.name.endswith(f"layers.0.mlp.experts.{left}")]
    found = verdict(replace(source, pairs=pairs))[NEW]
    assert not found.alike and f"it needs an adapter on model.layers.0.mlp.experts.{left} beside" in found.note


def test_llama_cpp_transposes_the_pairs_of_conv1d_and_vllm_has_none():
    source = read_source(saved("plain LoRA"))
    found = {
        one.server: one for one in verdicts(source.config, source.pairs, transposed="transformer.h.0.attn.c_attn")
    }
    assert not found[LLAMA].alike and "Conv1D layers of GPT-2, such as transformer.h.0" in found[LLAMA].note
    for server in (NEW, OLDER, OLD):
        assert found[server] == (server, False, "it has no adapters for GPT-2", True)
    assert found[PEFT].alike


def test_who_finds_a_language_model_that_was_loaded_alone_in_the_whole_one():
    source = read_source(saved("plain LoRA"))
    found = {one.server: one for one in verdicts(source.config, source.pairs, inside="model.layers.0.mlp.up_proj")}
    assert {name for name, one in found.items() if one.alike} == {PEFT, NEW}
    assert {name for name, one in found.items() if not one.checked} == {SGLANG, TENSORRT, LLAMA}
    for server in (OLDER, OLD):
        note = "it serves the whole model, where it finds no model.layers.0.mlp.up_proj, and leaves that out"
        assert found[server].note == note


@pytest.mark.parametrize("name", PLAIN)
def test_every_server_reads_a_portable_export_with_whole_groups(name, tmp_path):
    source = read_source(saved(name))
    pairs = complete(source.pairs, CASES[name].base())
    write_portable(source, pairs, tmp_path, dtype=source.pairs[0].a.dtype)
    assert alike(read_source(tmp_path)) == EVERY


@pytest.mark.parametrize("name", PLAIN)
def test_peft_and_both_vllm_read_a_compact_export(name, tmp_path):
    source = read_source(saved(name))
    write_compact(source, source.pairs, tmp_path, dtype=source.pairs[0].a.dtype)
    assert alike(read_source(tmp_path)) >= {PEFT, NEW, OLDER, OLD}


def test_the_scalings_are_those_of_the_rules():
    """By hand: r 4, alpha 8; v_proj has rank 2; one up_proj has rank 7."""
    source = read_source(saved("mixed ranks"))
    names = [pair.name for pair in source.pairs]
    plain, value, up = (
        names.index(f"model.layers.1.{n}") for n in ("mlp.gate_proj", "self_attn.v_proj", "mlp.up_proj")
    )
    for server, expected in {PEFT: (2, 4, 8 / 7), NEW: (2, 4, 8 / 7), OLD: (2, 2, 2), LLAMA: (2, 4, 8 / 7)}.items():
        rule = next(one.scalings for one in SERVERS if one.name == server)
        found = rule(source.config, source.pairs, ())
        assert (found[plain], found[value], found[up]) == pytest.approx(expected)


def test_llama_cpp_divides_by_the_rank_of_the_tensor_and_reads_no_alpha_pattern():
    source = read_source(saved("gates"))
    rule = next(one.scalings for one in SERVERS if one.name == LLAMA)
    assert set(rule(source.config, source.pairs, ())) == {1.5}


@pytest.mark.parametrize(
    ("chosen", "note"),
    [
        ("model.layers.0.self_attn.q_proj", "it needs v_proj beside model.layers.0.self_attn.q_proj"),
        ("model.layers.1.self_attn.k_proj", "it needs q_proj beside model.layers.1.self_attn.k_proj"),
        ("model.layers.1.mlp.up_proj", "it needs gate_proj beside model.layers.1.mlp.up_proj"),
    ],
)
def test_sglang_needs_whole_groups(chosen, note):
    source = read_source(saved("plain LoRA"))
    alone = replace(source, pairs=[pair for pair in source.pairs if pair.name == chosen])
    assert verdict(alone)[SGLANG].note == f"{note}; --complete_fused adds it"
    gate = [pair for pair in source.pairs if pair.name == "model.layers.1.mlp.gate_proj"]
    assert verdict(replace(source, pairs=gate))[SGLANG].alike, "SGLang adds a missing up_proj by itself"


def test_tensorrt_fills_a_type_that_no_layer_has_and_no_hole_in_one_layer():
    source = read_source(saved("plain LoRA"))
    without_k = [pair for pair in source.pairs if not pair.name.endswith("k_proj")]
    assert verdict(replace(source, pairs=without_k))[TENSORRT].alike
    hole = [pair for pair in source.pairs if pair.name != "model.layers.1.self_attn.k_proj"]
    assert verdict(replace(source, pairs=hole))[TENSORRT].note == (
        "it needs model.layers.1.self_attn.k_proj beside model.layers.1.self_attn.q_proj, since other layers have it; "
        "--complete_fused adds it"
    )


def test_whole_modules_are_read_by_vllm_where_they_are_heads():
    source = read_source(saved("plain LoRA"))
    assert alike(source, ["score"]) == {PEFT, NEW, OLDER, OLD}
    assert alike(source, ["model.pooler"]) == {PEFT}


@pytest.mark.parametrize(("rank", "setting"), [(1, 1), (2, 8), (9, 16), (64, 64), (300, 320), (512, 512), (513, None)])
def test_the_rank_setting_of_vllm(rank, setting):
    assert vllm_rank(rank) == setting


def test_a_rank_that_vllm_does_not_take_is_said():
    source = read_source(saved("plain LoRA"))
    pairs = [replace(pair, rank=513) for pair in source.pairs]
    found = {one.server: one for one in verdicts(source.config, pairs)}
    assert found[NEW].note == "its largest --max-lora-rank is 512, and this adapter has rank 513"
    assert found[SGLANG].note.startswith("it loads one rank only, 4, and model.layers.0.mlp.down_proj has rank 513")
