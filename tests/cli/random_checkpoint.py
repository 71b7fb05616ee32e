#!/usr/bin/env python3
"""Makes a Qwen3-MoE checkpoint of a given size with random bf16 weights, to load and measure.

usage: random_checkpoint.py OUT_FOLDER [--mib 2500] [--seed 1]

The same arguments give the same bytes. Weights are drawn once, 8 MiB of them, and repeated from varying places: what they
are does not matter here, how many there are does.
"""
import argparse
import json
import pathlib
import random
import struct

HIDDEN, WIDTH, HEAD_DIM, HEADS, KV_HEADS, VOCAB, EXPERTS, TOP_K = 1024, 768, 128, 16, 4, 32000, 32, 4
BLOCK_BYTES = 8 << 20


def shapes(num_layers):
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    yield "lm_head.weight", [VOCAB, HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{norm}.weight", [HIDDEN]
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            yield f"{prefix}self_attn.{name}_proj.weight", [heads * HEAD_DIM, HIDDEN]
        yield f"{prefix}self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD_DIM]
        for name in ("q_norm", "k_norm"):
            yield f"{prefix}self_attn.{name}.weight", [HEAD_DIM]
        yield f"{prefix}mlp.gate.weight", [EXPERTS, HIDDEN]
        for expert in range(EXPERTS):
            for name, shape in (("gate", [WIDTH, HIDDEN]), ("up", [WIDTH, HIDDEN]), ("down", [HIDDEN, WIDTH])):
                yield f"{prefix}mlp.experts.{expert}.{name}_proj.weight", shape


def size(shape):
    count = 2
    for dim in shape:
        count *= dim
    return count


def config(num_layers):
    return {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": VOCAB, "hidden_size": HIDDEN,
            "num_hidden_layers": num_layers, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM, "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH, "num_experts": EXPERTS,
            "num_experts_per_tok": TOP_K, "norm_topk_prob": True, "tie_word_embeddings": False, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"}


def make(folder, mib, seed=1):
    """Writes the folder; returns the bytes of its weights."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    of = [sum(size(shape) for _, shape in shapes(layers)) for layers in (0, 1)]
    num_layers = max(1, round(((mib << 20) - of[0]) / (of[1] - of[0])))
    header, end = {}, 0
    for name, shape in shapes(num_layers):
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size(shape)]}
        end += size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Any sign and mantissa, magnitudes of 2^-6 and 2^-5.
    draw = random.Random(seed)
    values = [draw.getrandbits(1) << 15 | draw.choice((121, 122)) << 7 | draw.getrandbits(7) for _ in range(1 << 16)]
    block = struct.pack(f"<{1 << 16}H", *values) * (BLOCK_BYTES >> 17)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        left = end
        while left > 0:
            begin = 2 * draw.randrange(1 << 16)
            left -= out.write(block[begin:begin + min(left, BLOCK_BYTES - (1 << 17))])
    (folder / "config.json").write_text(json.dumps(config(num_layers), indent=1), encoding="utf-8")
    return end


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--mib", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(make(args.folder, args.mib, args.seed), "bytes of weights")


if __name__ == "__main__":
    main()
