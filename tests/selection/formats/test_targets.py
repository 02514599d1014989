"""One rank for tools without patterns, whole alphas, grids and split groups."""

from selections import chosen, edited, lora_llama, lora_t5, lora_twins

from weightlora.selection.formats.targets import one_for_all, short_form, split_groups, whole_numbers


def attention(layers, kinds: str) -> list[str]:
    return [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in layers for kind in kinds]


def test_one_rank_and_scaling_for_all():
    selection = chosen(lora_llama(rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 4}), 14)
    one = one_for_all(selection, "it")
    assert (one.rank, one.scaling, one.alpha, len(one.notes)) == (8, 2.0, 16.0, 2)
    rslora = chosen(lora_llama(use_rslora=True), 14)
    assert one_for_all(rslora, "it")[:3] == (4, 4.0, 8.0)
    assert one_for_all(rslora, "it", rslora=False)[:3] == (4, 4.0, 16.0)
    assert one_for_all(rslora, "it").notes == ()


def test_an_alpha_stays_whole_where_the_scaling_has_no_end():
    """With rsLoRA, rank 8 and alpha 8 scale by the root of 8."""
    alpha = one_for_all(chosen(lora_llama(r=8, lora_alpha=8, use_rslora=True), 14), "it").alpha
    assert whole_numbers("it", alpha) == (8, {}, None)


def test_whole_alphas():
    assert whole_numbers("it", 8.0, {"a": 4}) == (8, {"a": 4}, None)
    alpha, pattern, note = whole_numbers("it", 0.3, {"a": 4.6})
    assert (alpha, pattern) == (1, {"a": 5})
    assert note == "it takes whole numbers as alpha: 1 stands for 0.3, 5 stands for 4.6."


def test_a_grid_is_found():
    llama = chosen(lora_llama(12))
    assert short_form(edited(llama, attention((1, 11), "qv"))) == (["self_attn.q_proj", "self_attn.v_proj"], [1, 11])
    assert short_form(edited(llama, attention((1, 11), "qv")[:3])) is None, "no grid"
    assert short_form(edited(llama, attention((1,), "qkvo"))) is None, "one layer"
    assert short_form(edited(llama, attention((1, 2), "q"))) is None, "small"


def test_a_grid_in_one_of_two_stacks_is_none():
    names = [f"encoder.block.{layer}.layer.0.SelfAttention.{kind}" for layer in range(2) for kind in "qv"]
    assert short_form(edited(chosen(lora_t5()), names)) is None
    assert (
        short_form(edited(chosen(lora_twins()), [f"layers.{i}.{kind}" for i in (0, 2) for kind in ("up", "down")]))
        is None
    )


def test_parts_of_fused_groups_are_counted():
    llama = chosen(lora_llama())
    assert split_groups(edited(llama, attention((0,), "qkv"))) == 0
    assert split_groups(edited(llama, [*attention((0, 1), "q"), "model.layers.0.mlp.up_proj"])) == 3
    assert split_groups(edited(llama, attention((0,), "o"))) == 0
    without_k = chosen(lora_llama(target_modules=["q_proj", "v_proj"]), 2)
    assert split_groups(edited(without_k, attention((0, 1), "qv"))) == 2, "no adapter on k, whether it could have one"
