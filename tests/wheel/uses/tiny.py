"""What the scripts beside this one share: a tiny Llama on disk, texts, and the command that the wheel installed."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "good", "bad", "fine", "awful", "film", "plot", "actor", "scene"]
TRAIN = ["--task", "causal-lm", "--model", "base", "--train_file", "texts.jsonl", "--max_steps", "4", "--use_cpu"]
TRAIN += ["--max_length", "16", "--select_steps", "2", "--keep", "3", "--per_device_train_batch_size", "4"]


def llama() -> LlamaForCausalLM:
    """The same weights at each call; 14 linear modules."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, **sizes))


def lora() -> PeftModel:
    return get_peft_model(llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(2, len(WORDS), (4, 8))
    return {"input_ids": tokens, "labels": tokens}


def save_inputs() -> None:
    """The model as `base` and 40 texts as `texts.jsonl`, in the working directory."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="fine")
    llama().save_pretrained("base")
    fast.save_pretrained("base")
    lines = (json.dumps({"text": f"{WORDS[2 + i % 8]} {WORDS[2 + i // 8]} film"}) for i in range(40))
    Path("texts.jsonl").write_text("\n".join(lines))


def save_adapter() -> None:
    """A LoRA adapter that changes what the model computes, as `adapter` in the working directory."""
    model = lora()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained("adapter")


def command(*arguments: str) -> str:
    """Run the script that pip has put beside the interpreter; returns what it prints."""
    script = Path(sys.executable).with_name("weightlora")
    return subprocess.run([script, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def weightlora(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Do what the script does, in this process, whose imports took seconds; returns what it prints."""
    from weightlora.cli import main

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        found = main(arguments)
    assert found == code, f"{arguments} exited with {found}: {out.getvalue()}{error.getvalue()}"
    return out.getvalue(), error.getvalue()


def pip_install(requirement: str, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, requirement], check=True)
