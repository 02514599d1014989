"""Groups by name, and the choice of whole groups within a budget."""

import pytest
import torch

from weightlora.budget import Budget
from weightlora.errors import ConfigError
from weightlora.selection.groups import check_groups, choose, complete, labels_for, mean_ranks, of_groups

LLAMA = [f"model.layers.{i}.self_attn.{x}_proj" for i in range(2) for x in "qkvo"]
LLAMA += [f"model.layers.{i}.mlp.{x}_proj" for i in range(2) for x in ("gate", "up", "down")]
BERT = [
    "bert.encoder.layer.0.attention.self.query",
    "bert.encoder.layer.0.attention.self.key",
    "bert.encoder.layer.0.attention.self.value",
    "bert.encoder.layer.0.attention.output.dense",
    "bert.encoder.layer.0.intermediate.dense",
    "bert.encoder.layer.0.output.dense",
    "bert.pooler.dense",
]


def groups(names: list[str], group: str) -> list[list[str]]:
    """The last parts of the names in each group of more than one module."""
    members: dict[str, list[str]] = {}
    for name, label in zip(names, labels_for(names, group), strict=True):
        members.setdefault(label, []).append(name)
    return [names for names in members.values() if len(names) > 1]


@pytest.mark.parametrize(
    ("names", "qkv", "mlp"),
    [
        (LLAMA[:4] + LLAMA[8:11], LLAMA[:3], LLAMA[8:11]),
        (BERT, BERT[:3], BERT[4:6]),
        (
            deberta := [f"layer.0.attention.self.{x}_proj" for x in ("query", "key", "value")]
            + ["layer.0.attention.output.dense", "layer.0.intermediate.dense", "layer.0.output.dense"],
            deberta[:3],
            deberta[4:],
        ),
        (
            distil := [f"layer.0.attention.{x}_lin" for x in ("q", "k", "v", "out")]
            + ["layer.0.ffn.lin1", "layer.0.ffn.lin2"],
            distil[:3],
            distil[4:],
        ),
        (
            t5 := [f"encoder.block.0.layer.0.SelfAttention.{x}" for x in "qkvo"]
            + [f"encoder.block.0.layer.1.DenseReluDense.{x}" for x in ("wi_0", "wi_1", "wo")],
            t5[:3],
            t5[4:],
        ),
        (gpt2 := ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"], None, gpt2[2:]),
        (
            phi3 := ["layers.0.self_attn.qkv_proj", "layers.0.mlp.gate_up_proj", "layers.0.mlp.down_proj"],
            None,
            phi3[1:],
        ),
        (
            modernbert := ["layers.0.attn.Wqkv", "layers.0.attn.Wo", "layers.0.mlp.Wi", "layers.0.mlp.Wo"],
            None,
            modernbert[2:],
        ),
        (
            albert := [f"layer_groups.0.albert_layers.0.{x}" for x in ("attention.dense", "ffn", "ffn_output")],
            None,
            albert[1:],
        ),
        (qwen3_vl := ["blocks.0.attn.proj", "blocks.0.mlp.linear_fc1", "blocks.0.mlp.linear_fc2"], None, qwen3_vl[1:]),
        (granite := ["layers.0.shared_mlp.input_linear", "layers.0.shared_mlp.output_linear"], None, granite),
        (
            wav2vec2 := [f"layers.0.feed_forward.{x}" for x in ("intermediate_dense", "output_dense")],
            None,
            wav2vec2,
        ),
        (["layers.0.self_attn.q_proj", "layers.0.cross_attn.k_proj", "layers.1.self_attn.k_proj"], None, None),
        (["q", "k", "v"], ["q", "k", "v"], None),
    ],
)
def test_groups_are_found_by_name(names, qkv, mlp):
    assert groups(names, "qkv") == ([] if qkv is None else [qkv])
    assert groups(names, "mlp") == ([] if mlp is None else [mlp])
    assert groups(names, "none") == [] and labels_for(names, "none") == names


def test_a_layer_is_all_modules_of_a_block():
    assert groups(LLAMA, "layer") == [[name for name in LLAMA if f"layers.{i}." in name] for i in range(2)]
    assert groups(BERT, "layer") == [BERT[:6]], "the pooler is alone"


def test_a_group_of_one_goes_by_its_own_name():
    assert labels_for(["a.q_proj", "b.up_proj"], "qkv") == ["a.q_proj", "b.up_proj"]
    assert labels_for(LLAMA[:4], "qkv")[2:] == ["model.layers.0.self_attn.[q_proj+k_proj+v_proj]", LLAMA[3]]


def test_the_best_groups_that_fit_are_chosen_whole():
    labels = ["qkv0", "qkv0", "qkv0", "o0", "qkv1", "qkv1", "qkv1", "o1"]
    sizes = [4, 2, 2, 4, 4, 2, 2, 4]
    sums = of_groups(torch.tensor([3.0, 0, 0, 2, 1, 1, 2, 1], dtype=torch.float64), labels)
    assert sums.tolist() == [3, 3, 3, 2, 4, 4, 4, 1]

    def kept(number, parameters):
        return choose(sums, sizes, labels, Budget(((number, parameters),))).nonzero().flatten().tolist()

    assert kept(4, 100) == [3, 4, 5, 6], "the second group has no room, the single module has"
    assert kept(None, 12) == [3, 4, 5, 6] and kept(None, 16) == [0, 1, 2, 4, 5, 6] and kept(8, 24) == list(range(8))
    assert kept(3, 7) == [3], "by parameters"
    assert complete(torch.tensor([True] + 7 * [False]), labels).tolist() == 3 * [True] + 5 * [False]


def test_without_groups_the_choice_is_the_budgets_own():
    scores = torch.tensor([1.0, 5, 3], dtype=torch.float64)
    budget = Budget(((2, 5),))
    assert torch.equal(choose(scores, [1, 4, 4], ["a", "b", "c"], budget), budget.best(scores, [1, 4, 4], 0))


def test_no_evidence_comes_after_negative_evidence():
    sums = of_groups(torch.tensor([0.0, 0, -1, -2], dtype=torch.float64), ["a", "a", "b", "c"])
    assert sums.argsort(descending=True, stable=True).tolist()[:2] == [2, 3]


def test_mean_ranks_share_a_rank_among_equals():
    first, second = torch.tensor([3.0, 1, 2]), torch.tensor([1.0, 1, 5])
    assert mean_ranks([first]).tolist() == [1, 3, 2]
    assert mean_ranks([second]).tolist() == [2.5, 2.5, 1]
    assert mean_ranks([first, second]).tolist() == [1.75, 2.75, 1.5]


@pytest.mark.parametrize(
    ("budget", "group", "message"),
    [
        ((2, 100), "qkv", r"group='qkv' has at least 3 modules in each group, and keep is 2"),
        ((None, 11), "qkv", r"groups of at least 12 parameters, and the budget is 11"),
        ((3, 11), "qkv", r"groups of at least 12 parameters"),
    ],
)
def test_a_budget_without_room_for_a_group_is_refused(budget, group, message):
    with pytest.raises(ConfigError, match=message):
        check_groups(["a", "a", "a", "b", "b", "b"], 6 * [4], Budget((budget,)), group)
    check_groups(["a", "a", "a", "b", "b", "b"], 6 * [4], Budget(((3, 12),)), group)


def test_an_unknown_group_is_refused():
    with pytest.raises(ConfigError, match="group='block' is not known: choose one of 'none', 'qkv', 'mlp', 'layer'"):
        labels_for(LLAMA, "block")
