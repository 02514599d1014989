"""The whole of an export: each profile, what is refused, and that nothing half-written is left."""

import json
import shutil

import pytest
import torch
from exports import CASES, EXPERTS_AND_HEADS, logits, randomize_, save, saved, tree
from models import lora_zoo, save_tokenizer, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import weightlora
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, DataError, ModelError
from weightlora.export import PROFILES, exporting
from weightlora.export.exporting import export_adapter

FILES = {
    "portable": {"README.md", "adapter_config.json", "adapter_model.safetensors"},
    "compact": {"README.md", "adapter_config.json", "adapter_model.safetensors"},
    "merged": {"config.json", "generation_config.json", "model.safetensors"},
    "mlx": {"adapter_config.json", "adapters.safetensors"},
    "gguf": {"adapter.gguf"},
}


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_writes_its_files_and_a_record(profile, tmp_path):
    exported = weightlora.export_adapter(saved("rsLoRA with gates and ranks"), tmp_path / "out", profile)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES[profile] | {"export.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record.items() >= exported.to_dict().items() and record["versions"]["peft"]
    assert (exported.profile, exported.rank, exported.dtype) == (profile, 7, "float32")
    assert exported.adapters == (0 if profile == "merged" else 14)
    if profile == "merged":
        assert exported.difference is None and exported.servers == ()
    else:
        assert exported.difference < 1e-7
    assert (exported.outputs is None) == (profile in ("mlx", "gguf"))


@pytest.mark.parametrize("profile", ["portable", "compact"])
@pytest.mark.parametrize("name", sorted(EXPERTS_AND_HEADS | {"gates", "a few modules"}))
def test_plain_peft_gives_the_same_logits(name, profile, tmp_path):
    exported = export_adapter(saved(name), tmp_path / "out", profile)
    assert exported.outputs.difference < 1e-6 < exported.outputs.effect
    before, after = (logits(place, CASES[name].base()) for place in (saved(name), tmp_path / "out"))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_whole_groups_are_counted_apart(tmp_path):
    exported = export_adapter(saved("a few modules"), tmp_path / "out", complete_fused=True)
    assert (exported.adapters, exported.completed) == (8, 5)
    assert all(verdict.alike for verdict in exported.servers)
    torch.testing.assert_close(
        logits(tmp_path / "out", tiny_llama()), logits(saved("a few modules"), tiny_llama()), rtol=0, atol=1e-6
    )


def test_convolutions_are_exported_by_their_tensors(tmp_path):
    model = lora_zoo(r=4, rank_pattern={"conv2": 3, "linear": 5}, alpha_pattern={"conv1": -2.5})
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    for profile in ("portable", "compact"):
        exported = export_adapter(tmp_path / "adapter", tmp_path / profile, profile, check="tensors")
        assert exported.difference < 1e-7
        tensors = load_file(tmp_path / profile / "adapter_model.safetensors")
        ranks = {key.split(".")[2]: t.shape[0] for key, t in tensors.items() if "_A" in key}
        expected = (
            dict.fromkeys(ranks, 6) if profile == "portable" else {**dict.fromkeys(ranks, 4), "conv2": 3, "linear": 5}
        )
        assert ranks == expected


def test_a_dtype_is_kept_where_nothing_is_lost_and_else_float32(tmp_path):
    for name, dtype in (("plain LoRA", "bfloat16"), ("gates", "float32")):
        adapter = shutil.copytree(saved(name), tmp_path / name)
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file({key: t.bfloat16() for key, t in tensors.items()}, adapter / "adapter_model.safetensors")
        assert export_adapter(adapter, tmp_path / f"{name} out", check="tensors").dtype == dtype
    exported = export_adapter(saved("gates"), tmp_path / "cast", dtype="float16")
    assert exported.dtype == "float16" and 1e-5 < exported.difference < 2e-3


@pytest.mark.parametrize(("scaling", "size"), [(1 / 16, 1e-5), (256, 1e3)])
def test_float16_is_left_where_the_scaled_adapter_is_not_exact_in_it(scaling, size, tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=4 * scaling, target_modules=["q_proj"]))
    randomize_(model)
    for adapter in find_adapters(model):
        a, b = adapter.factors
        a.data, b.data = a.data.half(), (size * b.data).half()
    model.save_pretrained(tmp_path / "adapter")
    exported = export_adapter(tmp_path / "adapter", tmp_path / "out", check="tensors")
    assert exported.dtype == "float32" and exported.difference < 1e-7


def test_embeddings_of_the_base_that_were_changed_are_not_lost(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    base = tiny_llama()
    base.model.embed_tokens.weight.data[40:] += 1  # as for new tokens
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["embed_tokens"], task_type="CAUSAL_LM"))
    randomize_(model)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    for check in ("logits", "tensors"):
        with pytest.raises(
            ModelError, match=r"trained with another 'model.embed_tokens.weight' than the base has, .* with --base"
        ):
            export_adapter(tmp_path / "adapter", tmp_path / "out", check=check)
    PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter").unload().save_pretrained(tmp_path / "new")
    assert export_adapter(tmp_path / "adapter", tmp_path / "out", base=str(tmp_path / "new")).outputs.difference < 1e-6
    with torch.no_grad():
        torch.testing.assert_close(
            logits(tmp_path / "out", AutoModelForCausalLM.from_pretrained(tmp_path / "new")),
            model.eval()(input_ids=torch.arange(3, 15)[None]).logits,
        )


def test_embeddings_that_were_trained_a_little_are_not_lost(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    randomize_(model)
    base.model.embed_tokens.weight.data *= 1.001
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(ModelError, match=r"trained with another 'model.embed_tokens.weight' than the base has"):
        export_adapter(tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize("check", ["logits", "tensors"])
def test_no_error_advises_a_check_that_needs_the_base_too(check, tmp_path):
    adapter = save(CASES["gates"], tmp_path / "source")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.randn(50, 16)
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="does not name its base model: give it with --base") as error:
        export_adapter(adapter, tmp_path / "out", check=check)
    assert "tensors" not in str(error.value)


def test_the_outputs_tell_that_an_export_has_lost_an_output_layer(tmp_path, monkeypatch):
    """The export is put on a base that the source, with this layer, has not changed."""
    adapter = save(CASES["gates"], tmp_path / "source")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] = torch.randn(50, 16)
    save_file(tensors, adapter / "adapter_model.safetensors")
    monkeypatch.setattr(exporting, "check_tables", lambda *_: None)
    with pytest.raises(ModelError, match="the outputs of the export differ from the source's by"):
        export_adapter(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["embed_tokens", "q_proj"])
@pytest.mark.parametrize("profile", ["portable", "mlx", "gguf"])
def test_embeddings_of_new_tokens_are_not_lost(profile, target, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(56)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"of shape \(56, 16\), and the base has \(50, 16\), as before new tokens"):
        export_adapter(tmp_path / "adapter", tmp_path / "out", profile, check="tensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("profile", ["portable", "compact", "merged", "mlx", "gguf"])
def test_embeddings_of_the_base_beside_other_adapters_are_left_out(profile, tmp_path):
    """PEFT writes them with `save_embedding_layers=True`, and without it where the vocabulary was changed."""
    tiny_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    randomize_(model)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert "base_model.model.lm_head.weight" in load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    exported = export_adapter(tmp_path / "adapter", tmp_path / "out", profile)
    assert exported.outputs is None or exported.outputs.difference < 1e-6
    if profile in ("portable", "compact"):
        assert all(".lora_" in key for key in load_file(tmp_path / "out" / "adapter_model.safetensors"))


@pytest.mark.parametrize("profile", ["gguf", "mlx"])
def test_the_base_is_asked_for_the_shapes(profile, tmp_path):
    config = tiny_llama().config
    config.hidden_size, config.head_dim = 32, 16
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    with pytest.raises(
        ModelError, match=r"belongs to a weight of shape \(16, 24\), and the base has one of shape \(32, 24\)"
    ):
        export_adapter(saved("gates"), tmp_path / "out", profile, base=str(tmp_path / "wide"))


def test_a_base_that_was_moved_is_named_where_it_is_now(tmp_path):
    adapter = save(CASES["gates"], tmp_path / "source")
    (tmp_path / "source" / "base").rename(tmp_path / "moved")
    export_adapter(adapter, tmp_path / "out", base=str(tmp_path / "moved"))
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "moved"
    )
    export_adapter(saved("gates"), tmp_path / "kept", base=str(tmp_path / "moved"))
    config = json.loads((tmp_path / "kept" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(saved("gates").parent / "base"), "it is still there"


def test_a_base_that_the_adapter_does_not_name_is_named(tmp_path):
    adapter = save(CASES["gates"], tmp_path / "source")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    base = str(tmp_path / "source" / "base")
    export_adapter(adapter, tmp_path / "out", base=base, check="tensors")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == base


def test_a_merged_model_with_several_chat_templates_can_be_replaced(tmp_path):
    adapter = save(CASES["gates"], tmp_path / "source")
    base = tmp_path / "source" / "base"
    save_tokenizer(base, ["film"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(base)
    for overwrite in (False, True):
        export_adapter(adapter, tmp_path / "out", "merged", check="tensors", overwrite=overwrite)
        assert (tmp_path / "out" / "additional_chat_templates" / "tool_use.jinja").is_file()


def test_an_export_does_not_overwrite_its_base_or_a_directory_inside(tmp_path):
    base = tmp_path / "merged"
    export_adapter(save(CASES["gates"], tmp_path / "first"), base, "merged", check="tensors")
    adapter = save(CASES["gates"], tmp_path / "second")
    with pytest.raises(DataError, match=r"is, or holds, .*merged, which the export needs: give another directory"):
        export_adapter(adapter, base, base=str(base), overwrite=True)
    assert (base / "model.safetensors").is_file()
    export_adapter(adapter, tmp_path / "out", check="tensors")
    (tmp_path / "out" / "notes").mkdir()
    with pytest.raises(DataError, match="notes is a directory, which no export makes"):
        export_adapter(adapter, tmp_path / "out", check="tensors", overwrite=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profile": "portible"}, r"^profile='portible' is not known: the nearest is portable\.$"),
        (
            {"profile": "x"},
            r"^profile='x' is not known: choose one of 'portable', 'compact', 'merged', 'mlx', 'gguf'\.$",
        ),
        ({"dtype": "float64"}, r"^dtype='float64' is not known: the nearest is"),
        ({"check": "logit"}, r"^check='logit' is not known: the nearest is logits\.$"),
        ({"complete_fused": True, "profile": "mlx"}, r"^complete_fused adds nothing that profile 'mlx' needs"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_adapter(saved("gates"), tmp_path / "out", **settings)
    assert tree(tmp_path) == {}


def test_an_existing_directory_is_refused_unless_it_is_an_export_and_asked_for(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    for overwrite, message in (
        (False, r"is not empty: give another directory, or add --overwrite \(in Python overwrite=True\)"),
        (True, r"holds no earlier export \(no export.json"),
    ):
        with pytest.raises(DataError, match=message):
            export_adapter(saved("gates"), tmp_path / "out", check="tensors", overwrite=overwrite)
    assert tree(tmp_path) == {"out": None, "out/mine": b"mine"}
    export_adapter(saved("gates"), tmp_path / "again", "mlx")
    with pytest.raises(DataError, match="is not empty"):
        export_adapter(saved("gates"), tmp_path / "again", check="tensors")
    export_adapter(saved("gates"), tmp_path / "again", check="tensors", overwrite=True)
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES["portable"] | {"export.json"}
    with pytest.raises(DataError, match="mine is a file: give a directory"):
        export_adapter(saved("gates"), tmp_path / "out" / "mine")


def test_an_export_onto_itself_is_refused(tmp_path):
    export_adapter(saved("gates"), tmp_path / "out", check="tensors")
    for target in (tmp_path / "out", tmp_path):
        (target / "export.json").touch()
        with pytest.raises(DataError, match="is the adapter itself, or holds it: give another directory"):
            export_adapter(tmp_path / "out", target, overwrite=True)


def test_without_its_base_an_adapter_is_exported_by_tensors_only(tmp_path):
    adapter = save(CASES["gates"], tmp_path / "source")
    shutil.rmtree(tmp_path / "source" / "base")
    with pytest.raises(
        ModelError,
        match=r"cannot be found \(.*\): give it with --base DIR_OR_ID \(in Python base=\.\.\.\), or compare",
    ):
        export_adapter(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_adapter(adapter, tmp_path / "out", check="tensors").outputs is None
    assert export_adapter(adapter, tmp_path / "mlx", "mlx").difference < 1e-7
    base = str(saved("gates").parent / "base")
    assert export_adapter(adapter, tmp_path / "with", base=base).outputs.difference < 1e-6


def test_another_base_is_refused_and_nothing_stays(tmp_path):
    with pytest.raises(ModelError, match="may be another"):
        export_adapter(saved("gates"), tmp_path / "out", base=str(saved("experts").parent / "base"))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("old", [False, True], ids=["nothing there", "an older export there"])
def test_no_room_on_disk_is_one_sentence_and_nothing_half_written_stays(profile, old, tmp_path, monkeypatch):
    if old:
        export_adapter(saved("gates"), tmp_path / "out", "mlx")
    before = tree(tmp_path)

    def fail(path, value, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_json", fail)
    with pytest.raises(
        DataError, match=r"out cannot be written \(.*No space left on device\): nothing was left there"
    ):
        export_adapter(saved("gates"), tmp_path / "out", profile, overwrite=old)
    assert tree(tmp_path) == before


def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch):
    true = exporting.write_portable

    def halved(source, pairs, directory, dtype):
        true(source, pairs, directory, dtype)
        tensors = load_file(directory / "adapter_model.safetensors")
        key = next(key for key in tensors if "lora_B" in key)
        save_file(tensors | {key: tensors[key] / 2}, directory / "adapter_model.safetensors")

    monkeypatch.setattr(exporting, "write_portable", halved)
    with pytest.raises(ModelError, match=r"differs from the source by 5\.0e-01 of its norm"):
        export_adapter(saved("plain LoRA"), tmp_path / "out")
    assert tree(tmp_path) == {}
