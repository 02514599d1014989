# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import argparse
import os

from datasets import load_dataset
from module_selection import select_target_modules
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from peft import LoraConfig, get_peft_model


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Select the modules to adapt by a few batches, and fine-tune the model with LoRA.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--base_model", required=True, help="name or path of the base model")
    parser.add_argument("--data_path", required=True, help="dataset on the Hub, or a JSON lines file")
    parser.add_argument("--output_dir", required=True, help="where the adapter is saved")
    parser.add_argument("--task", choices=["causal", "classification"], default="causal")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--label_column", default="label", help="of a classification task: class numbers from 0")
    parser.add_argument("--budget", type=float, default=0.25, help="adapter parameters, as a share of all candidates'")
    parser.add_argument("--num_batches", type=int, default=4, help="batches to select by")
    parser.add_argument("--max_steps", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--cutoff_len", type=int, default=256, help="tokens of a text at most")
    parser.add_argument("--lora_r", type=int, default=8)
    parser.add_argument("--lora_alpha", type=int, default=32)
    parser.add_argument("--lora_dropout", type=float, default=0.0)
    parser.add_argument("--target_modules", default="all-linear", help="the candidates; names separated by commas")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def load_data(args: argparse.Namespace, tokenizer):
    if os.path.exists(args.data_path):
        rows = load_dataset("json", data_files=args.data_path, split="train")
    else:
        rows = load_dataset(args.data_path, split="train")

    def tokenize(batch):
        tokenized = dict(tokenizer(batch[args.text_column], truncation=True, max_length=args.cutoff_len))
        if args.task == "classification":
            tokenized["labels"] = batch[args.label_column]
        return tokenized

    return rows.map(tokenize, batched=True, remove_columns=rows.column_names)


def train(args: argparse.Namespace) -> list[str]:
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.base_model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    data = load_data(args, tokenizer)

    if args.task == "causal":
        base_model = AutoModelForCausalLM.from_pretrained(args.base_model)
        data_collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    else:
        num_labels = max(data["labels"]) + 1
        base_model = AutoModelForSequenceClassification.from_pretrained(args.base_model, num_labels=num_labels)
        data_collator = DataCollatorWithPadding(tokenizer)
    base_model.config.pad_token_id = tokenizer.pad_token_id

    lora_config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.target_modules.split(",") if "," in args.target_modules else args.target_modules,
        task_type="CAUSAL_LM" if args.task == "causal" else "SEQ_CLS",
    )
    candidates = get_peft_model(base_model, lora_config)
    candidates.print_trainable_parameters()
    batches = DataLoader(data, args.batch_size, shuffle=True, collate_fn=data_collator)
    names = select_target_modules(candidates, batches, args.budget, args.num_batches)

    base_model = candidates.unload()
    lora_config.target_modules = names
    model = get_peft_model(base_model, lora_config)
    model.print_trainable_parameters()
    print("selected modules:", *model.targeted_module_names, sep="\n  ")

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            bf16=args.bf16,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=data,
        data_collator=data_collator,
    )
    trainer.train()

    model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    return model.targeted_module_names


if __name__ == "__main__":
    train(parse_args())
