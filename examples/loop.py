"""A plain PyTorch loop with LoRA. Lines with `# +` are added for WeightLoRA.

python examples/loop.py MODEL data.jsonl out    (each line has "text", and "label": 0 or 1)
"""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from weightlora import WeightLora, WeightLoraConfig  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000
device = "cuda" if torch.cuda.is_available() else "cpu"

tokenizer = AutoTokenizer.from_pretrained(model_id)
with open(data, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]

base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
lora = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS")
model = get_peft_model(base, lora).to(device).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
schedule = get_linear_schedule_with_warmup(optimizer, steps // 20, steps)


def collate(picked):
    batch = tokenizer([row["text"] for row in picked], padding=True, truncation=True, return_tensors="pt")
    return batch | {"labels": torch.tensor([row["label"] for row in picked])}


sampler = torch.utils.data.RandomSampler(rows, replacement=True, num_samples=16 * steps)
loader = torch.utils.data.DataLoader(rows, 16, sampler=sampler, collate_fn=collate)
WeightLora(model, optimizer, WeightLoraConfig(keep_parameters=0.25)).probe(loader)  # +

for batch in loader:
    loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()

model.save_pretrained(output_dir)  # an ordinary PEFT adapter: PeftModel.from_pretrained loads it
