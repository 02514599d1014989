import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import AutoPeftModelForSequenceClassification
from recipes import arguments, glue_rows, save_model, write_rows
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from weightlora import Selection
from weightlora.errors import ConfigError, ModelError
from weightlora.train import fit, loading, parse, prepare
from weightlora.train.arguments import Recipe
from weightlora.train.settings import ModelArguments


def recipe_with(world: Path, *more: object) -> Recipe:
    return parse(arguments(world, "cola", "deberta", world / "out", *more))


@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ([], torch.float32),
        (["--bf16"], torch.bfloat16),
        (["--bf16", "--method", "full"], torch.float32),  # these weights train
        (["--bf16", "--dtype", "float16"], torch.float16),
    ],
)
def test_the_dtype_of_the_base_model(world: Path, more: list[str], dtype: torch.dtype):
    assert loading.dtype_of(recipe_with(world, *more)) == dtype


def test_an_unknown_dtype_is_refused(world: Path):
    with pytest.raises(ConfigError, match="dtype='int8' is not known: choose one of 'float32', 'bfloat16', 'float16'"):
        loading.dtype_of(recipe_with(world, "--dtype", "int8"))


def test_flash_attention_is_asked_for_where_it_can_run(world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: True)
    half = recipe_with(world, "--bf16")
    assert loading.attention_of(half) is None, "on a CPU"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    half.training.use_cpu = False
    assert loading.attention_of(half) == "flash_attention_2"
    half.model.dtype = "float32"
    assert loading.attention_of(half) is None
    half.model.attn_implementation = "sdpa"
    assert loading.attention_of(half) == "sdpa"


def test_an_empty_model_has_the_head_of_the_task_and_no_weights(world: Path):
    config = loading.load_config(ModelArguments(model=str(world / "deberta")))
    config.num_labels = 3
    model = loading.empty_model(SimpleNamespace(auto_class="AutoModelForSequenceClassification"), config)
    assert model.classifier.out_features == 3 and {p.device.type for p in model.parameters()} == {"meta"}
    with pytest.raises(ModelError, match="deberta-v2 models have no AutoModelForSeq2SeqLM: choose another model"):
        loading.empty_model(SimpleNamespace(auto_class="AutoModelForSeq2SeqLM"), config)


@pytest.mark.parametrize("kind", ["bart", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_empty_model_counts_shared_weights_once(kind: str, tied: bool, world: Path):
    auto = "AutoModelForCausalLM" if kind == "llama" else "AutoModelForSeq2SeqLM"
    config = loading.load_config(ModelArguments(model=str(world / kind)))
    config.tie_word_embeddings = tied
    model = loading.empty_model(SimpleNamespace(auto_class=auto), config)
    real = getattr(transformers, auto).from_config(config)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in real.parameters())
    assert {p.device.type for p in model.parameters()} == {"meta"}


HEADS = {
    "deberta": ["pooler.dense"],
    "distilbert": ["pre_classifier"],
    "bart": [f"classification_head.{x}" for x in ("dense", "out_proj")],
}


@pytest.mark.parametrize("kind", HEADS)
def test_weights_that_the_checkpoint_lacks_are_trained_in_full_and_are_in_the_adapter(
    kind: str, world: Path, tmp_path: Path
):
    """The heads of these models have more modules than PEFT knows, and their checkpoints lack them all."""
    base = save_model(kind, tmp_path / kind)
    AutoModel.from_pretrained(base).save_pretrained(base)
    given = arguments(world, "mnli", kind, tmp_path / "run", "--dataset", world / "glue", "--model", base)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint has no weights")
        job = prepare(parse(given))
    with pytest.warns(UserWarning, match=f"has no weights of {', '.join(HEADS[kind])}, so they are random: they are"):
        result = fit(job)
    assert result.adapters_before == job.plan.adapters and not {*HEADS[kind]} & {*(result.names or ())}
    assert result.trainable_parameters_before == job.plan.trainable[0]
    assert Selection.load(tmp_path / "run").modules_to_save == HEADS[kind], "other tools read it there"
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "run" / "adapter", num_labels=3)
    assert result.metrics["validation_matched"]["held_out_loss"] == pytest.approx(loss_on_mnli(loaded, base), rel=1e-5)


def loss_on_mnli(model: nn.Module, base: Path) -> float:
    rows = glue_rows("mnli", 12)
    batch = AutoTokenizer.from_pretrained(base)(
        *([row[name] for row in rows] for name in ("premise", "hypothesis")), padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        return float(model.eval()(**batch, labels=torch.tensor([row["label"] for row in rows])).loss)


def test_weights_that_no_adapter_can_contain(world: Path):
    """A module with parts cannot be saved in full."""
    whole = AutoModelForSequenceClassification.from_pretrained(world / "deberta", num_labels=3)
    whole.pooler.register_parameter("scale", nn.Parameter(torch.ones(2)))
    work = SimpleNamespace(task_type="SEQ_CLS", auto_class="AutoModelForSequenceClassification")
    match = r"of pooler, so they are random, and an adapter does not contain them: .* and num_labels=3, save it and"
    with pytest.warns(UserWarning, match=match):
        assert loading._fresh(whole, ["pooler.scale", "classifier.weight"], work) == []


def test_a_checkpoint_with_all_weights_and_full_fine_tuning_bring_no_warning(world: Path, tmp_path: Path):
    more = ["--dataset", world / "glue", "--max_steps", 1]
    AutoModel.from_pretrained(world / "deberta").save_pretrained(bare := tmp_path / "bare")
    full = [*more, "--method", "full", "--model", bare, "--tokenizer", world / "deberta"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint has no weights")
        result = fit(prepare(parse(arguments(world, "mnli", "deberta", tmp_path / "lora", *more, "--method", "lora"))))
        fit(prepare(parse(arguments(world, "mnli", "deberta", tmp_path / "full", *full))))
    assert "pooler.dense" in (result.names or ())


def test_a_model_must_be_given():
    with pytest.raises(ConfigError, match="--model is missing"):
        loading.load_config(ModelArguments())


def test_four_bits(world: Path, tmp_path: Path):
    save_model("llama", tmp_path / "llama", width=64)  # the kernels need whole blocks
    more = ["--dataset", world / "glue", "--load_in_4bit", "--verbalised", "--model", tmp_path / "llama"]
    result = fit(prepare(parse(arguments(world, "cola", "llama", tmp_path, *more))))
    assert result.adapters_after == 3


def test_four_bits_leave_what_trains_in_full_as_it_is(world: Path, tmp_path: Path):
    """A head of an encoder, and the pooler that the checkpoint lacks: bitsandbytes cannot run them half quantized."""
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    words = len(AutoTokenizer.from_pretrained(world / "deberta"))
    BertModel(BertConfig(vocab_size=words, **size), add_pooling_layer=False).save_pretrained(bare := tmp_path / "bare")
    more = ["--dataset", world / "glue", "--load_in_4bit", "--model", bare, "--tokenizer", world / "deberta"]
    prepared = prepare(parse(arguments(world, "cola", "deberta", tmp_path, *more)))
    with pytest.warns(UserWarning, match=r"of bert\.pooler\.dense, so they are random: they are trained in full"):
        result = fit(prepared)
    assert result.adapters_after == 3
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {f"base_model.model.{name}.weight" for name in ("classifier", "bert.pooler.dense")} <= saved.keys()


@pytest.mark.parametrize(("fresh", "left"), [([], None), (["model.extra"], ["lm_head", "model.extra"])])
def test_four_bits_leave_the_output_layer_of_a_language_model(world: Path, monkeypatch, fresh, left):
    monkeypatch.setattr(loading, "fresh_modules", lambda *args, **kwargs: fresh)
    work = SimpleNamespace(task_type="CAUSAL_LM", auto_class="AutoModelForCausalLM")
    config = transformers.AutoConfig.from_pretrained(world / "llama")
    assert loading._unquantized(work, config, ModelArguments()) == left


@pytest.mark.parametrize("name", ["deberta", "bart", "llama"])
def test_a_directory_without_a_tokenizer(world: Path, tmp_path: Path, refused, name):
    """Transformers makes one for it, without words: each row would be unknown tokens."""
    (tmp_path / "bare").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / file).write_bytes((world / name / file).read_bytes())
    task = ["--task", "cola", "--dataset", world / "glue"]
    message = refused(*task, "--model", tmp_path / "bare")
    assert "bare" in message and message.endswith("save the tokenizer there, or give --tokenizer.")


def test_a_tokenizer_without_a_pad_token(world: Path, tmp_path: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama"]
    assert refused(*arguments).endswith("has no pad token: give --pad_token, such as its end of text '</s>'.")
    message = refused(*arguments, "--pad_token", "[PADDING]")
    assert message.startswith("pad_token='[PADDING]' is not in the vocabulary")
    tokenizer = AutoTokenizer.from_pretrained(world / "llama")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    message = refused(*arguments, "--tokenizer", tmp_path)
    assert message.endswith("has no pad token: give --pad_token, one of its vocabulary."), "None is no token"


def test_a_token_that_the_model_has_no_embedding_for(world: Path, tmp_path: Path, refused):
    given = ["--task", "causal-lm", "--model", world / "llama", "--tokenizer", tmp_path, "--max_length", "32"]
    file = write_rows(tmp_path / "rows.jsonl", [{"text": f"a film {i}"} for i in range(4)])
    tokenizer = AutoTokenizer.from_pretrained(world / "llama")
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<nothing>"})
    tokenizer.save_pretrained(tmp_path)
    message = refused(*given, "--train_file", file)
    assert message.startswith(
        f"the tokenizer has number {size} for '<nothing>', and the model has embeddings for numb"
    )
    assert message.endswith(f"below {size}: give another --pad_token, such as its end of text '</s>'.")
    given += ["--pad_token", "</s>", "--train_file", file]
    write_rows(file, [{"text": f"a film {i} <nothing>"} for i in range(4)])
    assert refused(*given).endswith(f"below {size}: give its own tokenizer.")
    write_rows(file, [{"text": f"a film {i}"} for i in range(4)])
    prepare(parse([*map(str, given), "--output_dir", str(tmp_path / "out"), "--use_cpu"]))


def test_models_that_are_not_there(world: Path, tmp_path: Path, refused):
    data = ["--task", "cola", "--dataset", world / "glue", "--model"]
    message = refused(*data, "meta-llama/Meta-Llama-3-8B")  # gated
    assert message.startswith(
        "the model meta-llama/Meta-Llama-3-8B is not in the local cache, and HF_HUB_OFFLINE is set"
    )
    assert "hf auth login" in message
    assert refused(*data, tmp_path / "no") == f"the model {tmp_path / 'no'} is missing: there is no such directory."
    assert len(refused(*data, "x" * 10_000)) < 1000
    assert len(refused(*data, "/" + "x/" * 1000)) < 400
    shutil.copytree(world / "bart", broken := tmp_path / "bart")
    (broken / "config.json").write_text("{")
    assert refused(*data, broken).startswith(f"the model {broken} cannot be loaded")
    assert "nyu-mll/glue cannot be loaded from the hub (HF_HUB_OFFLINE is set)" in refused(
        "--task", "cola", "--model", world / "deberta"
    )


def test_an_adapter_is_not_a_model(world: Path, tmp_path: Path, refused):
    shutil.copytree(world / "deberta", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "model.safetensors").unlink()
    message = refused("--task", "cola", "--dataset", world / "glue", "--model", tmp_path / "adapter")
    assert message.startswith(f"the model {tmp_path}/adapter is an adapter of PEFT: give the model that it was")


def test_the_hub_may_be_reachable_and_a_file_still_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "is_offline_mode", lambda: False)
    with (
        pytest.raises(ValueError, match=r"the model a/b cannot be loaded from the hub: gone\."),
        loading._in_one_sentence("model", "a/b"),
    ):
        raise OSError("gone.\nsecond line")
