"""A loop with Accelerate, accumulation and LoRA, on one process or many. Lines with `# +` are added for WeightLoRA.

accelerate launch examples/accelerate_loop.py MODEL data.jsonl out    (each line has "text", and "label": 0 or 1)
"""

import sys

from accelerate import Accelerator
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

from weightlora import WeightLora, WeightLoraConfig  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000

accelerator = Accelerator(gradient_accumulation_steps=2)
tokenizer = AutoTokenizer.from_pretrained(model_id)
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True), remove_columns="text").rename_column(
    "label", "labels"
)
loader = DataLoader(rows, batch_size=8, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))

base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS")).train()
optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
moves = steps * accelerator.num_processes  # a prepared schedule advances by num_processes in each step
schedule = get_linear_schedule_with_warmup(optimizer, moves // 20, moves)
model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
WeightLora(model, optimizer, WeightLoraConfig(keep_parameters=0.25)).probe(loader)  # +

done = 0
while done < steps:
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            if accelerator.sync_gradients:
                done += 1
            schedule.step()
            optimizer.zero_grad()
        if done == steps:
            break

if accelerator.is_main_process:
    accelerator.unwrap_model(model).save_pretrained(output_dir)
