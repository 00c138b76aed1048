#!/usr/bin/env python3
"""RoPE's frequencies under every scaling of positions, by Hugging Face transformers, for meap's tests.

Each case is a config.json, a context length, the frequencies and the factor on cosines and sines that LlamaRotaryEmbedding uses
for a context of that length.

  pip install -r scripts/peer/requirements.txt
  python3 scripts/peer/rope.py > pkg/transformer/testdata/rope.json
"""
import json

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SIZES = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 8, "vocab_size": 8}


def case(head_dim, theta, max_position_embeddings, length, scaling):
    config = dict(SIZES, hidden_size=2 * head_dim, head_dim=head_dim, rope_theta=theta, max_position_embeddings=max_position_embeddings)
    if scaling:
        config["rope_scaling"] = scaling
    # transformers adds to the dictionaries that it is given.
    rope = LlamaRotaryEmbedding(transformers.LlamaConfig(**json.loads(json.dumps(config))))
    rope(torch.zeros(1), torch.arange(length)[None])  # dynamic scaling looks at the positions
    return {"config": config, "length": length, "frequencies": [float(f"{v:.9g}") for v in rope.inv_freq.tolist()],
            "attention_factor": float(rope.attention_scaling)}


def main():
    cases = []
    for head_dim, theta, n in [(64, 10000.0, 4096), (128, 500000.0, 8192), (32, 10000.0, 512), (6, 1e6, 64)]:
        llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": n // 4}
        yarn = {"rope_type": "yarn", "factor": 4.0}
        for scaling in [
            None,
            {"type": "linear", "factor": 4.0},
            {"rope_type": "linear", "factor": 2.5},
            dict(yarn, original_max_position_embeddings=n),
            dict(yarn, original_max_position_embeddings=n // 2, beta_fast=16.0, beta_slow=2.0),
            dict(yarn, original_max_position_embeddings=n, attention_factor=1.25, truncate=False),
            dict(yarn, factor=40.0, original_max_position_embeddings=n, mscale=1.0, mscale_all_dim=0.8),
            yarn,
            llama3,
            dict(llama3, factor=32.0, low_freq_factor=2.0, high_freq_factor=3.0),
        ]:
            cases.append(case(head_dim, theta, n, 10, scaling))
        for length in [n // 2, n, n + 1, 3 * n, 4 * n]:
            cases.append(case(head_dim, theta, n, length, {"rope_type": "dynamic", "factor": 4.0}))
    print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")


if __name__ == "__main__":
    main()
