"""Text classification with Lightning and LoRA. The lines that end in `# +` are what WeightLoRA adds.

python examples/lightning_module.py MODEL data.jsonl out    (a text and a label, 0 or 1, a line)
"""

import sys

import lightning.pytorch as pl
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from weightlora import WeightLoraConfig  # +
from weightlora.trainers.lightning import WeightLoraLightningCallback  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
        lora = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS")
        self.model = get_peft_model(base, lora).train()

    def training_step(self, batch, index):
        loss = self.model(**batch).loss
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)


tokenizer = AutoTokenizer.from_pretrained(model_id)
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True), remove_columns="text")
loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))

module = Classifier()
trainer = pl.Trainer(
    max_steps=steps,
    gradient_clip_val=1.0,
    default_root_dir=f"{output_dir}-run",  # checkpoints: trainer.fit(module, loader, ckpt_path=...) goes on from one
    callbacks=[WeightLoraLightningCallback(WeightLoraConfig(keep=0.25, select_steps=steps // 5))],  # +
)
trainer.fit(module, loader)
module.model.save_pretrained(output_dir)  # plain PEFT: PeftModel.from_pretrained reads it
