import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from recipes import arguments, glue_rows, save_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from weightlora.errors import ConfigError, ModelError
from weightlora.train import fit, loading, parse, prepare
from weightlora.train.arguments import ModelArguments, Recipe
from weightlora.train.result import Result

FULL = ["--method", "full", "--max_steps", "1"]


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
    with pytest.raises(ConfigError, match="dtype='int8' is unknown: choose one of float32, bfloat16, float16"):
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


def test_weights_that_neither_the_checkpoint_nor_the_adapter_has(world: Path, tmp_path: Path):
    """A tiny DeBERTa has no pooler before its head, like the real one. The advice of the warning makes it whole."""

    def train(model: Path, output: str) -> Result:
        given = arguments(world, "mnli", "deberta", tmp_path / output, "--dataset", world / "glue", "--method", "lora")
        return fit(prepare(parse([*given, "--model", str(model), "--max_steps", "2"])))

    with pytest.warns(UserWarning, match=r"has no weights of pooler\.dense, .* and num_labels=3, save it and the tok"):
        train(world / "deberta", "first")
    whole = AutoModelForSequenceClassification.from_pretrained(world / "deberta", num_labels=3)
    for part in (whole, AutoTokenizer.from_pretrained(world / "deberta")):
        part.save_pretrained(tmp_path / "whole")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint has no weights")
        result = train(tmp_path / "whole", "second")
        fit(
            prepare(
                parse([*arguments(world, "cola", "deberta", tmp_path / "full", "--dataset", world / "glue"), *FULL])
            )
        )
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "second" / "adapter", num_labels=3)
    rows = glue_rows("mnli", 12)
    batch = AutoTokenizer.from_pretrained(tmp_path / "whole")(
        *([row[name] for row in rows] for name in ("premise", "hypothesis")), padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        loss = loaded.eval()(**batch, labels=torch.tensor([row["label"] for row in rows])).loss
    assert float(loss) == pytest.approx(result.metrics["validation_matched"]["held_out_loss"], rel=1e-5)


def test_a_model_must_be_given():
    with pytest.raises(ConfigError, match="--model is missing"):
        loading.load_config(ModelArguments())


def test_a_gguf_model_needs_a_transformers_that_reads_it(monkeypatch: pytest.MonkeyPatch):
    def use(version: str) -> None:
        monkeypatch.setattr("transformers.__version__", version)
        monkeypatch.setattr("importlib.metadata.version", lambda name: version)

    use("5.18.0")
    loading.check_gguf()
    use("5.17.1")
    with pytest.raises(ConfigError, match=r"^a GGUF model needs Transformers 5\.18 or newer, and this is 5\.17\.1, "):
        loading.load_config(ModelArguments(model=".", gguf_file="model.gguf"))


def test_four_bits(world: Path, tmp_path: Path):
    save_model("llama", tmp_path / "llama", width=64)  # the kernels need whole blocks
    more = ["--dataset", world / "glue", "--load_in_4bit", "--verbalised", "--model", tmp_path / "llama"]
    result = fit(prepare(parse(arguments(world, "cola", "llama", tmp_path, *more))))
    assert result.adapters_after == 3


def test_a_tokenizer_without_a_pad_token(world: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama"]
    assert refused(*arguments).endswith("has no pad token: give --pad_token, for example its end of text, '</s>'.")
    message = refused(*arguments, "--pad_token", "[PADDING]")
    assert message.startswith("pad_token='[PADDING]' is not in the vocabulary")


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


def test_the_hub_may_be_reachable_and_a_file_still_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with (
        pytest.raises(ValueError, match=r"the model a/b cannot be loaded from the hub: gone\."),
        loading._in_one_sentence("model", "a/b"),
    ):
        raise OSError("gone.\nsecond line")
