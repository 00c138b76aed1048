#!/usr/bin/env python3
"""Logits of Hugging Face transformers for the models that meap's tests compare with.

For each model folder under the given one (pkg/transformer/testdata/hf, written by `go test ./pkg/transformer -run Transformers
-update`) it writes logits.json: fixed ids, the fp32 logits after each of them, and a greedy continuation of the first eight. It also
makes one folder itself, saved_by_transformers: a random Llama in bf16, in shards, as save_pretrained writes it.

  pip install -r scripts/peer/requirements.txt
  python3 scripts/peer/hf_logits.py pkg/transformer/testdata/hf
"""
import json
import pathlib
import sys

import torch
import transformers

SAVED = "saved_by_transformers"


def save_own(folder):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.3, bos_token_id=None, eos_token_id=None)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    model.save_pretrained(folder, max_shard_size="8KB")


def logits_of(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, model.config.vocab_size, (1, 40), generator=generator)
    with torch.no_grad():
        logits = model(ids).logits[0]
        greedy = model.generate(ids[:, :8], attention_mask=torch.ones_like(ids[:, :8]), do_sample=False, max_new_tokens=12,
                                eos_token_id=None, pad_token_id=0)
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "ids": ids[0].tolist(),
        "logits": [[float(f"{v:.9g}") for v in row] for row in logits.tolist()],
        "greedy": greedy[0, 8:].tolist(),
    }


def main():
    root = pathlib.Path(sys.argv[1])
    save_own(root / SAVED)
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        (folder / "logits.json").write_text(json.dumps(logits_of(folder)) + "\n")
        print(folder)


if __name__ == "__main__":
    main()
