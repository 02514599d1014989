"""The extra `recipes`: summarization, whose metric is ROUGE."""

import json
from pathlib import Path

from tiny import TRAIN, WORDS, command, save_inputs
from transformers import BartConfig, BartForConditionalGeneration

save_inputs()
sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 4}
ends = {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 4, "forced_eos_token_id": 4}
BartForConditionalGeneration(BartConfig(vocab_size=len(WORDS), **sizes, **heads, **ends)).save_pretrained("base")
rows = ({"source": f"good {WORDS[2 + i % 8]} film", "target": WORDS[2 + i % 8]} for i in range(40))
Path("texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
arguments = ["seq2seq" if argument == "causal-lm" else argument for argument in TRAIN]
command("train", *arguments, "--max_target_length", "8", "--output_dir", "run")
(metrics,) = json.loads(Path("run/result.json").read_text())["metrics"].values()  # of one split
assert "rouge2" in metrics
