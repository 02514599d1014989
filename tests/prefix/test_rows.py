"""Keys of examples: the same content gives the same key in any batch, and other content another one."""

import inspect
import re
import types

import pytest
import torch
import transformers as t
from prefixes import examples, padded

from weightlora.prefix.rows import mixed, ropes_of, rows_of


def forward(input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None, cache=None, **kwargs): ...


def rows(*args, **kwargs):
    kwargs.pop("labels", None)
    return rows_of(inspect.signature(forward), args, kwargs)


def test_a_key_says_nothing_of_the_batch():
    texts = examples()
    one, other = rows(**padded(texts[:4])), rows(**padded([texts[2], texts[9], texts[0]]))
    assert one.keys[2] == other.keys[0] and one.keys[0] == other.keys[2]
    assert len({*one.keys, *other.keys}) == 5
    assert one.ends == [len(text) for text in texts[:4]]


def test_positional_arguments_are_the_same_as_named_ones():
    batch = padded(examples()[:4])
    assert rows(batch["input_ids"], batch["attention_mask"]) == rows(**batch)


def test_what_each_token_has_is_a_part_of_the_key():
    batch = padded(examples()[:4])
    ids, base = batch["input_ids"], rows(**batch).keys
    types = torch.zeros_like(ids)
    zeros = rows(**batch, token_type_ids=types).keys
    types[1, 0] = 1
    ones = rows(**batch, token_type_ids=types).keys
    assert [a == b for a, b in zip(zeros, ones, strict=True)] == [True, False, True, True]
    positions = torch.arange(ids.shape[1])[None]
    shared = rows(**batch, position_ids=positions).keys
    assert shared == rows(**batch, position_ids=positions.repeat(4, 1)).keys
    assert not {*base} & {*shared} and not {*base} & {*zeros}
    assert rows(**batch, position_ids=positions + 1).keys != shared


def test_left_padding_is_a_part_of_the_key_and_right_padding_is_not():
    texts = examples()
    alone = rows(**padded(texts[:1])).keys
    with_right, with_left = (rows(**padded([texts[0], torch.arange(4, 20)], left=left)) for left in (False, True))
    assert with_right.keys[0] == alone[0] != with_left.keys[0]
    assert with_left.ends[0] == 16 and not with_left.padding().any(), "the last place of padding has a loss"
    assert with_right.padding()[0].tolist() == [False] * len(texts[0]) + [True] * (16 - len(texts[0]))


def test_a_hole_in_the_mask_is_a_part_of_the_key():
    batch = padded([torch.arange(4, 12)])
    whole = rows(**batch).keys
    batch["attention_mask"][0, 3] = 0
    assert rows(**batch).keys != whole and rows(**batch).ends == [8]


def test_without_a_mask_all_tokens_count():
    assert rows(input_ids=torch.ones(2, 5, dtype=torch.long)).ends == [5] * 2


def test_adapters_below_the_cut_are_a_part_of_the_key():
    call = {"input_ids": examples()[0][None]}
    found = [rows_of(inspect.signature(forward), (), call, adapters).keys[0] for adapters in ("", "style", "-")]
    assert len({*found}) == 3 and found[0] == rows(**call).keys[0]


def test_autocast_is_a_part_of_the_key():
    batch = padded(examples()[:1])
    with torch.autocast("cpu", torch.bfloat16):
        found = rows(**batch)
    assert found.keys != rows(**batch).keys and found.precision is torch.bfloat16


IDS = torch.ones(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ({}, "no input_ids of shape"),
        ({"input_ids": None, "inputs_embeds": torch.ones(2, 5, 8)}, "no input_ids of shape"),
        ({"input_ids": IDS[0]}, "no input_ids of shape"),
        ({"input_ids": IDS[:0]}, "no input_ids of shape"),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 1, 5, 5)}, "attention_mask does not have a value for"),
        ({"input_ids": IDS, "attention_mask": torch.ones(1, 5)}, "attention_mask is not of the shape of input_ids"),
        ({"input_ids": IDS, "attention_mask": torch.zeros(2, 5)}, "or masks all of an example"),
        ({"input_ids": IDS, "cache": object()}, "^cache, a object, may change what the blocks compute$"),
        ({"input_ids": IDS, "use_cache": True}, "^use_cache=True may change what the blocks compute$"),
        ({"input_ids": IDS, "output_hidden_states": True}, "^output_hidden_states=True may"),
        ({"input_ids": IDS, "output_hidden_states": [1]}, "^output_hidden_states, a list, may"),
        ({"input_ids": IDS, "cu_seq_lens_q": torch.ones(3)}, "^cu_seq_lens_q does not have a value for each"),
        ({"input_ids": IDS, "position_ids": torch.ones(3, 5)}, "^position_ids does not have"),
        ({"input_ids": IDS, "encoder_hidden_states": torch.ones(2, 5, 8)}, "^encoder_hidden_states does not have"),
    ],
)
def test_calls_that_are_not_about_single_examples_give_the_reason(call, why):
    found = rows(**call)
    assert isinstance(found, str) and re.search(why, found)


def test_a_row_in_which_a_text_of_one_token_comes_first_is_packed_too():
    """Its positions do not fall anywhere."""
    call = {"input_ids": IDS, "position_ids": torch.tensor([[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])}
    found = rows_of(inspect.signature(forward), (), call, use_cache=True)
    assert isinstance(found, str) and found.startswith("position_ids that do not count up by 1 stand for texts")
    assert not isinstance(rows_of(inspect.signature(forward), (), call, use_cache=False), str)
    call["position_ids"] = torch.tensor([[0, 1, 2, 8, 9], [0, 1, 2, 3, 4]])
    assert isinstance(rows_of(inspect.signature(forward), (), call, use_cache=True), str), "a gap counts, too"


def test_an_argument_that_is_switched_off_is_a_part_of_the_key():
    plain = rows(input_ids=IDS)
    assert rows(input_ids=IDS, is_causal=False).keys != plain.keys
    assert rows(input_ids=IDS, use_cache=False, output_attentions=False, return_dict=False) == plain


def test_what_changes_nothing_is_ignored():
    call = {"num_items_in_batch": torch.tensor(7), "return_dict": True, "use_cache": False, "output_attentions": None}
    call |= {"logits_to_keep": 0}
    assert rows(input_ids=IDS, **call) == rows(input_ids=IDS)


def test_the_length_is_a_part_of_the_key_if_frequencies_depend_on_it():
    ropes = {"longrope ": 8}

    def found(length: int, ropes=ropes, **more):
        batch = padded([torch.arange(4, 9), torch.arange(4, 4 + length)])
        return rows_of(
            inspect.signature(forward), (), {k: batch[k] for k in ("input_ids", "attention_mask")}, "", ropes
        )

    assert found(6).keys[0] == found(8).keys[0] != found(10).keys[0] == found(12).keys[0]
    assert found(6, {}).keys[0] == found(10, {}).keys[0], "without longrope"
    dynamic = {"dynamic": 8}
    assert found(6, dynamic).keys[0] == found(8, dynamic).keys[0], "up to the original length nothing depends on it"
    assert found(10, dynamic) == "with rope_type 'dynamic', texts beyond 8 tokens depend on the batches before"


def test_a_model_without_a_number_of_positions_has_no_such_embeddings():
    assert ropes_of(t.RecurrentGemmaConfig()) == {}


def test_with_position_ids_their_highest_one_is_the_length():
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.long), "position_ids": torch.arange(5).repeat(2, 1)}
    alone, beside = (
        rows_of(inspect.signature(forward), (), batch | {"position_ids": batch["position_ids"] * scale}, "", ropes)
        for scale, ropes in (
            (torch.tensor([[1], [1]]), {"longrope ": 8}),
            (torch.tensor([[1], [3]]), {"longrope ": 8}),
        )
    )
    assert alone.keys[0] != beside.keys[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rope_type": "longrope", "original_max_position_embeddings": 8}, {"longrope ": 8}),
        ({"rope_type": "dynamic", "factor": 2.0}, {"dynamic": 32}),
        (
            {"full_attention": {"rope_type": "default"}, "sliding_attention": {"type": "longrope"}},
            {"longrope sliding_attention": 32},
        ),
        ({"rope_type": "default"}, {}),
        (None, {}),
    ],
)
def test_which_rotary_embeddings_depend_on_the_length(settings, expected):
    for name in ("rope_parameters", "rope_scaling"):
        assert ropes_of(types.SimpleNamespace(**{name: settings, "max_position_embeddings": 32})) == expected
    assert ropes_of(None) == {}


def test_a_default_device_of_the_user_changes_nothing():
    """`meta` stands for an accelerator: what is made there cannot be read."""
    batch, found = padded(examples()[:4]), []
    for device in ("cpu", "meta"):
        with torch.device(device):
            call = mixed(inspect.signature(forward), (), {"input_ids": batch["input_ids"]})
            found.append((rows(**batch).padding().tolist(), call[1]["input_ids"].tolist()))
    assert found[0] == found[1]
