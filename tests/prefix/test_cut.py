"""Where a model is cut, and which models are refused by name."""

import copy

import pytest
import torch
import transformers as t
from architectures import ARCHITECTURES
from models import lora_bert, lora_zoo, tiny_bert, tiny_llama
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from prefixes import upper, upper_bert
from torch import nn
from torch.nn.parallel import DataParallel

from weightlora.adapters import find_adapters
from weightlora.adapters.surgery import disconnect_
from weightlora.errors import ModelError
from weightlora.prefix.cut import check_dropout, find_cut, identity_of


@pytest.mark.parametrize("first", [0, 1, 3])
def test_the_cut_is_below_the_lowest_block_that_trains(first):
    model = upper_bert(first)
    cut, bert = find_cut(model), model.get_base_model().bert
    assert cut.first == first and cut.backbone is bert and cut.blocks is bert.encoder.layer
    assert cut.before == (bert.embeddings,) and cut.holders == (bert, bert.encoder)
    outside = [bert, *bert.embeddings.modules(), bert.encoder, *bert.pooler.modules()]
    assert cut.prefix == [*outside, *(module for block in bert.encoder.layer[:first] for module in block.modules())]


def test_a_head_alone_runs_the_last_block():
    model = tiny_llama(layers=3)
    model.model.requires_grad_(False)
    cut = find_cut(model)
    assert cut.first == 2 and cut.backbone is model.model and cut.before == (model.model.embed_tokens,)


def refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        find_cut(model)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["T5", "BART", "Whisper"])
def test_two_lists_of_blocks(kind):
    refused(ARCHITECTURES[kind].build(), "is an encoder-decoder, whose blocks are two lists: leave the prefix cache")


def test_no_list_of_blocks():
    refused(lora_zoo(), r"^Zoo has 0 lists of blocks \(none\), not one")


def test_two_lists_in_one_model():
    model = nn.ModuleDict({"a": tiny_bert(), "b": tiny_bert()})
    refused(model, r"^ModuleDict has 2 lists of blocks \(a\.bert\.encoder\.layer, b\.bert\.encoder\.layer\), not one")


def test_a_list_of_lists():
    shape = t.FunnelConfig(
        vocab_size=50, d_model=16, n_head=2, d_head=8, d_inner=24, block_sizes=[2, 2], num_decoder_layers=1
    )
    refused(
        t.FunnelForTokenClassification(shape),
        r"has 2 lists of blocks \(funnel\.encoder\.blocks\.0, funnel\.encoder\.blocks\.1\), not one",
    )


def test_images_have_no_tokens():
    refused(ARCHITECTURES["ViT"].build(), "^no module of ViTForImageClassification takes input_ids and runs")


def test_what_trains_below():
    model = upper_bert()
    model.get_base_model().bert.embeddings.LayerNorm.requires_grad_(True)
    refused(
        model, r"^bert\.embeddings\.LayerNorm\.weight trains, and the blocks compute with it, so what they give ch"
    )
    lora = LoraConfig(target_modules=["layer.3.output.dense"], modules_to_save=["word_embeddings"])
    refused(
        get_peft_model(tiny_bert(4), lora), r"^bert\.embeddings\.word_embeddings\.modules_to_save\.default\.weight"
    )


def test_what_trains_and_is_registered_after_the_blocks_is_left_to_the_first_batch():
    model = upper(ARCHITECTURES["DeBERTa-v2 and v3"].build(), 1)
    model.get_base_model().deberta.encoder.rel_embeddings.requires_grad_(True)
    assert find_cut(model).first == 1


def test_prompt_tuning():
    model = get_peft_model(tiny_llama(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    refused(model, "^PROMPT_TUNING trains what goes into the first block")


def test_wrappers_that_run_blocks_in_another_way():
    refused(DataParallel(upper_bert()), "^DataParallel copies the model for each step: train with DDP, or leave the")
    refused(torch.compile(upper_bert()), "^torch.compile fixes which blocks run: train without it, or")
    for part in ("", "base_model.model", "base_model.model.bert", "base_model.model.bert.encoder"):
        model = upper_bert()
        model.get_submodule(part).compile()  # in place, without a wrapper
        refused(model, "^torch.compile fixes which blocks run: train without it, or")
    model = upper_bert()
    for block in model.get_base_model().bert.encoder.layer:
        block.compile()
    assert find_cut(model).first == 2


def test_weights_that_are_elsewhere():
    refused(upper_bert().to("meta"), r"is not whole in this process \(FSDP, ZeRO stage 3, offloading\)")


def test_dropout_is_refused_by_name_unless_it_is_accepted():
    cut = find_cut(upper_bert(dropout=0.1))
    message = r"^BertEmbeddings\.dropout has p=0\.1, and blocks below the lowest adapter must compute the same each"
    with pytest.raises(ModelError, match=message):
        check_dropout(cut, "refuse")
    check_dropout(cut, "off")
    check_dropout(find_cut(upper_bert()), "refuse")


def test_batch_normalization_is_refused_unless_its_statistics_are_fixed():
    model = upper_bert()
    model.get_base_model().bert.encoder.layer[0].output.dense = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16))
    with pytest.raises(ModelError, match=r"BertLayer.output.dense.1 normalizes by the batch, .* prefix_dropout='off'"):
        check_dropout(find_cut(model), "refuse")
    check_dropout(find_cut(model), "off")


def test_dropout_that_is_a_number_of_a_module():
    model = upper(tiny_llama(layers=3), 2)
    cut = find_cut(model)
    check_dropout(cut, "refuse")
    cut.blocks[1].self_attn.attention_dropout = 0.25
    with pytest.raises(ModelError, match=r"^LlamaDecoderLayer\.self_attn has attention_dropout=0\.25"):
        check_dropout(cut, "refuse")
    cut.blocks[1].self_attn.attention_dropout, cut.blocks[2].self_attn.attention_dropout = 0.0, 0.25
    check_dropout(cut, "refuse")  # above the cut it may stay
    cut.backbone.layerdrop = 0.1
    with pytest.raises(ModelError, match=r"^LlamaModel has layerdrop=0\.1 around its blocks: set it to 0\.$"):
        check_dropout(cut, "off")


def test_before_the_choice_the_lowest_block_is_looked_at_and_the_dropout_of_adapters_is_not():
    cut = find_cut(lora_bert(lora_dropout=0.1))
    assert cut.first == 0
    check_dropout(cut, "refuse")
    cut.blocks[0].output.dropout.p = 0.3
    with pytest.raises(ModelError, match=r"^BertLayer\.output\.dropout has p=0\.3"):
        check_dropout(cut, "refuse")


def test_the_identity_is_the_same_before_and_after_the_choice():
    model = lora_bert(layers=3)
    before = identity_of(find_cut(model), 2)
    disconnect_(model, [adapter for adapter in find_adapters(model) if ".layer.2." not in adapter.name])
    cut = find_cut(model)
    assert cut.first == 2 and identity_of(cut) == before
    assert before["dtype"] == "torch.float32" and before["model"] == "BertModel"


def test_the_identity_sees_what_is_registered_after_the_blocks_and_runs_before_them():
    model = upper(ARCHITECTURES["DeBERTa-v2 and v3"].build(), 1)
    before = identity_of(find_cut(model))
    with torch.no_grad():
        model.get_base_model().deberta.encoder.rel_embeddings.weight.mul_(2)
    assert identity_of(find_cut(model))["weights"] != before["weights"]


def test_the_identity_sees_what_the_prefix_depends_on_and_nothing_else():
    model = upper_bert()
    identity = identity_of(find_cut(model))

    def differs(change) -> set[str]:
        other = copy.deepcopy(model)
        with torch.no_grad():
            change(other.get_base_model())
        found = identity_of(find_cut(other))
        return {name for name in identity if identity[name] != found[name]}

    assert differs(lambda base: base.bert.encoder.layer[2].output.dense.weight.mul_(2)) == set()
    assert differs(lambda base: base.classifier.weight.mul_(2)) == set()
    assert differs(lambda base: base.bert.pooler.dense.weight.mul_(2)) == {"weights"}, "it is in no block"
    assert differs(lambda base: base.bert.embeddings.position_ids.add_(1)) == set(), "not saved, and changes in some"
    assert differs(lambda base: vars(base.config).update(problem_type="regression", use_cache=False)) == set()
    assert differs(lambda base: base.bert.encoder.layer[1].output.dense.weight.mul_(2)) == {"weights"}
    assert differs(lambda base: base.bert.embeddings.position_embeddings.weight.mul_(2)) == {"weights"}
    assert differs(lambda base: vars(base.config).update(layer_norm_eps=1e-5)) == {"config"}
    assert differs(lambda base: base.bert.encoder.layer[2].requires_grad_(False)) == {"first", "weights"}
