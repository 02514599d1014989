"""Which adapters a selection works on, and one sentence for models that it cannot adapt."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from models import lora_bert, tiny_bert, tiny_llama, tiny_wav2vec2
from packaging.version import Version
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    FalconMambaConfig,
    JambaConfig,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MambaConfig,
    MambaForCausalLM,
)

from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, ModelError
from weightlora.selection.adapting import WITHOUT, adapted, task_type_of

SMALL = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=2
)


def names(model: nn.Module) -> list[str]:
    return [adapter.name for adapter in find_adapters(model)]


def test_a_model_with_adapters_is_taken_as_it_is():
    model = lora_bert()
    assert adapted(model, None) is model
    with pytest.raises(ConfigError, match=r"lora=\.\.\. adds adapters, and this model has some"):
        adapted(model, LoraConfig())
    base = inject_adapter_in_model(LoraConfig(target_modules=["query"]), tiny_bert())
    assert adapted(base, None) is base, "PEFT without its own model around it"


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA"])
def test_an_initialisation_that_changes_the_weights_is_refused_before_it_does(init):
    model = tiny_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=f"init_lora_weights='{init}' cannot be combined with a selection"):
        adapted(model, LoraConfig(target_modules=["query"], init_lora_weights=init))
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("make", "task_type", "head"),
    [
        (tiny_bert, "SEQ_CLS", "classifier"),
        (lambda: BertForTokenClassification(SMALL), "TOKEN_CLS", "classifier"),
        (lambda: BertForQuestionAnswering(SMALL), "QUESTION_ANS", "qa_outputs"),
        (tiny_llama, None, "lm_head"),
    ],
)
def test_all_linear_modules_but_the_head_get_adapters(make, task_type, head):
    model = make()
    linears = [n for n, module in model.named_modules() if isinstance(module, nn.Linear) and n != head]
    ready = adapted(model, None)
    assert names(ready) == linears and task_type_of(model) == task_type
    config = ready.peft_config["default"]
    assert (config.r, config.lora_alpha, config.task_type) == (8, 32, task_type)
    trains = {n for n, p in ready.named_parameters() if p.requires_grad and "lora_" not in n}
    assert bool(trains) == (task_type is not None) and all(head in n for n in trains)


def test_a_module_whose_name_ends_as_the_head_is_trained_in_full():
    """PEFT would adapt `pre_classifier`, and then refuse to save it in full as it does a `classifier`."""
    config = DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=1, hidden_dim=8)
    ready = adapted(DistilBertForSequenceClassification(config), None)
    assert len(names(ready)) == 6 and "pre_classifier" not in names(ready)
    trains = {n.split(".")[2] for n, p in ready.named_parameters() if p.requires_grad and "lora_" not in n}
    assert trains == {"pre_classifier", "classifier"}


def test_a_router_that_gives_a_tuple_gets_none():
    """Llama 4's router is a linear layer by its class, and not by what it returns, which PEFT cannot add to."""
    shape = Llama4TextConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        intermediate_size_mlp=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=2,
        interleave_moe_layer_step=1,
    )
    model = adapted(Llama4ForCausalLM(shape), None)
    assert not any("router" in name for name in names(model)) and any("q_proj" in name for name in names(model))
    ids = torch.arange(6)[None]
    model(input_ids=ids, labels=ids).loss.backward()


def test_modules_of_mamba_whose_weights_are_read_get_none():
    """PEFT refuses the output, whose weight a kernel reads. An adapter on dt_proj would change nothing."""
    shape = MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)
    model = adapted(MambaForCausalLM(shape), None)
    assert {name.rpartition(".")[2] for name in names(model)} == {"in_proj", "x_proj"}
    for model_type in WITHOUT.keys() - {"jamba"}:
        with pytest.raises(ValueError, match="incompatible with Mamba"):
            get_peft_model(tiny_named(model_type), LoraConfig(target_modules=["out_proj"]))


SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
READ = {
    "mamba": MambaConfig(**SIZES, state_size=4),
    "falcon_mamba": FalconMambaConfig(**SIZES, state_size=4),
    "jamba": JambaConfig(
        **SIZES, intermediate_size=8, num_attention_heads=2, num_key_value_heads=2, num_experts=2, mamba_d_state=4
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_a_module_whose_weight_is_read_gets_no_adapter(kind: str):
    """One on dt_proj would have no gradient, and would change nothing. Earlier versions of Transformers call it."""
    assert {name for name, without in WITHOUT.items() if "dt_proj" in without} == READ.keys()
    model = AutoModelForCausalLM.from_config(READ[kind])
    theirs = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["in_proj", "dt_proj"]))
    theirs(input_ids=torch.arange(6)[None], labels=torch.arange(6)[None], use_cache=False).loss.backward()
    reached = {a.name.rpartition(".")[2]: a.factors[1].grad is not None for a in find_adapters(theirs)}
    assert reached == {"in_proj": True, "dt_proj": Version(transformers.__version__) < Version("5.18")}
    assert not any("dt_proj" in name for name in names(adapted(model, None)))


def tiny_named(model_type: str) -> nn.Module:
    model = nn.Sequential()
    model.out_proj, model.config = nn.Linear(2, 2), SimpleNamespace(model_type=model_type, to_dict=dict)
    return model


def test_the_head_of_a_ctc_model_is_trained_in_full(tmp_path):
    """PEFT takes its name, lm_head, for an embedding's, and could not save an adapter on it."""
    model = adapted(tiny_wav2vec2(), None)
    assert "lm_head" not in names(model) and "lm_head" in model.peft_config["default"].modules_to_save
    model.save_pretrained(tmp_path)


def test_modules_that_are_not_of_transformers():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    assert names(adapted(model, None)) == ["0", "2"]


@pytest.mark.parametrize("other", [nn.LayerNorm(4), nn.Conv1d(4, 4, 1)])
def test_a_module_that_is_not_linear_gets_none_whatever_its_name_ends_in(other):
    """PEFT refuses a norm, and adapts a convolution."""
    model = nn.ModuleDict({"fc": nn.Linear(4, 4), "inner": nn.ModuleDict({"fc": other, "out": nn.Linear(4, 4)})})
    assert names(adapted(model, None)) == ["fc", "inner.out"]


def test_the_given_config_stays_as_it_is():
    lora = LoraConfig(r=2, target_modules=["query", "value"])
    before = dict(vars(lora))
    ready = adapted(tiny_bert(), lora)
    assert isinstance(ready, PeftModel) and len(names(ready)) == 4
    assert vars(lora) == before and lora.target_modules == {"query", "value"}


def test_a_compiled_model_is_adapted_inside():
    assert len(names(adapted(torch.compile(tiny_bert()), None))) == 13


@pytest.mark.parametrize(
    ("model", "lora", "error", "message"),
    [
        (nn.Sequential(nn.ReLU()), None, ModelError, "Sequential has no linear modules to adapt"),
        (nn.Linear(2, 2), None, ModelError, "Linear has no linear modules to adapt"),
        (tiny_llama(), LoraConfig(target_modules=["nothing"]), ModelError, "cannot add this lora to LlamaForCausalLM"),
        (tiny_llama(), LoraConfig(target_modules=["norm"]), ModelError, "is not supported"),
        (tiny_llama(), LoraConfig(r=0), ModelError, r"to LlamaForCausalLM: `r` should be .* value passed is 0\.$"),
        (tiny_llama(), {"r": 8}, ConfigError, "is a dict: pass a peft.LoraConfig"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(model, lora, error, message):
    with pytest.raises(error, match=message) as raised:
        adapted(model, lora)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("trainable", [True, False])
def test_weights_through_which_no_gradient_passes_are_refused(trainable):
    model = tiny_llama()
    config = SimpleNamespace(quant_method=SimpleNamespace(value="hqq"))
    model.hf_quantizer = SimpleNamespace(is_trainable=trainable, quantization_config=config)
    if trainable:
        assert len(names(adapted(model, None))) == 14
        return
    with pytest.raises(ModelError, match="quantized with hqq, which cannot be trained through"):
        adapted(model, None)
