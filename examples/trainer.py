"""Text classification with transformers.Trainer and LoRA.

Lines with `# +` are added for WeightLoRA. `# was:` shows what a line replaces.

python examples/trainer.py MODEL data.jsonl out    (each line has "text", and "label": 0 or 1)
"""

import sys

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainingArguments,
)

from weightlora import WeightLoraConfig  # +
from weightlora import WeightLoraTrainer as Trainer  # was: from transformers import Trainer

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000

tokenizer = AutoTokenizer.from_pretrained(model_id)
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=256), remove_columns="text")
rows = rows.train_test_split(test_size=0.1, seed=0)

base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS"))

trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir, max_steps=steps, learning_rate=1e-3, report_to="none"),
    train_dataset=rows["train"],
    eval_dataset=rows["test"],
    data_collator=DataCollatorWithPadding(tokenizer),
    weightlora=WeightLoraConfig(keep_parameters=0.25),  # +
)
trainer.train()
print(trainer.evaluate())
trainer.save_model(output_dir)  # an ordinary PEFT adapter: PeftModel.from_pretrained loads it
