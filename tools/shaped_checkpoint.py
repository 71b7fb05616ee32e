#!/usr/bin/env python3
"""Writes a checkpoint with the layer shapes of a published model, fewer layers, and random weights, for measurements of speed and memory.

    tools/shaped_checkpoint.py SHAPE FOLDER [--layers N] [--experts N] [--vocab-size N] [--seed N]

SHAPE is qwen3-30b-a3b (bf16), deepseek-v3 (fp8 blocks; its first layer is dense here) or gpt-oss-120b (mxfp4). The same arguments give
the same bytes. There is no tokenizer: such a model is run with token ids (`wideload logits`, `wideload bench`). Needs Python's standard
library only. FOLDER must not exist.
"""

import argparse
import json
import pathlib
import random
import struct
import sys

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}
SHARD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 24

# Sign and exponent of a bf16 (its high byte) for magnitudes of 2^-9 to 2^-5: sums over some thousand products stay of order 1.
BF16_HIGH = bytes((0x3B, 0x3C, 0xBB, 0xBC)[i % 4] for i in range(256))
# e4m3 without its NaN (0x7f, 0xff) and below 2, so that scales of 2^-9 give magnitudes like those of bf16.
FP8 = bytes((i & 0x80) | (i & 0x3F) for i in range(256))
FP8_SCALE = 2.0 ** -9
# mxfp4: any four-bit values, scales of 2^-8 to 2^-5 (e8m0, bias 127).
MXFP4_SCALE = bytes(127 - 8 + i % 4 for i in range(256))


def qwen3(args):
    hidden, heads, kv_heads, head, inner = 2048, 32, 4, 128, 768
    layers, experts, vocab = args.layers or 2, args.experts or 128, args.vocab_size
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head, "num_experts": experts,
        "num_experts_per_tok": 8, "moe_intermediate_size": inner, "intermediate_size": 6144, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": True, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": None, "max_position_embeddings": 40960, "vocab_size": vocab, "tie_word_embeddings": False,
        "attention_bias": False, "torch_dtype": "bfloat16"}
    tensors = [("model.embed_tokens.weight", "BF16", [vocab, hidden], "weight")]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors += [(at + name, "BF16", shape, kind) for name, shape, kind in (
            ("input_layernorm.weight", [hidden], "one"), ("post_attention_layernorm.weight", [hidden], "one"),
            ("self_attn.q_norm.weight", [head], "one"), ("self_attn.k_norm.weight", [head], "one"),
            ("self_attn.q_proj.weight", [heads * head, hidden], "weight"),
            ("self_attn.k_proj.weight", [kv_heads * head, hidden], "weight"),
            ("self_attn.v_proj.weight", [kv_heads * head, hidden], "weight"),
            ("self_attn.o_proj.weight", [hidden, heads * head], "weight"), ("mlp.gate.weight", [experts, hidden], "weight"))]
        for expert in range(experts):
            tensors += [(f"{at}mlp.experts.{expert}.{name}.weight", "BF16", shape, "weight") for name, shape in (
                ("gate_proj", [inner, hidden]), ("up_proj", [inner, hidden]), ("down_proj", [hidden, inner]))]
    return config, tensors + head_tensors(vocab, hidden)


def deepseek_v3(args):
    hidden, heads, inner, dense = 7168, 128, 2048, 18432
    q_rank, kv_rank, nope, rope, value = 1536, 512, 128, 64, 128
    layers, experts, vocab = args.layers or 2, args.experts or 256, args.vocab_size
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "q_lora_rank": q_rank, "kv_lora_rank": kv_rank,
        "qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": value, "intermediate_size": dense,
        "moe_intermediate_size": inner, "n_routed_experts": experts, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8,
        "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "first_k_dense_replace": 1, "moe_layer_freq": 1, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "max_position_embeddings": 163840, "vocab_size": vocab, "tie_word_embeddings": False,
        "attention_bias": False, "torch_dtype": "bfloat16",
        "rope_scaling": {"type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
                         "original_max_position_embeddings": 4096},
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                "weight_block_size": [128, 128]}}

    def matrix(name, rows, columns):
        blocks = [-(-rows // 128), -(-columns // 128)]
        return [(name + ".weight", "F8_E4M3", [rows, columns], "fp8"), (name + ".weight_scale_inv", "F32", blocks, "scale")]

    def mlp(at, width):
        return (matrix(at + "gate_proj", width, hidden) + matrix(at + "up_proj", width, hidden) +
                matrix(at + "down_proj", hidden, width))

    tensors = [("model.embed_tokens.weight", "BF16", [vocab, hidden], "weight")]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors += [(at + name, "BF16", [width], "one") for name, width in (
            ("input_layernorm.weight", hidden), ("post_attention_layernorm.weight", hidden),
            ("self_attn.q_a_layernorm.weight", q_rank), ("self_attn.kv_a_layernorm.weight", kv_rank))]
        for name, rows, columns in (("q_a_proj", q_rank, hidden), ("q_b_proj", heads * (nope + rope), q_rank),
                                    ("kv_a_proj_with_mqa", kv_rank + rope, hidden), ("kv_b_proj", heads * (nope + value), kv_rank),
                                    ("o_proj", hidden, heads * value)):
            tensors += matrix(f"{at}self_attn.{name}", rows, columns)
        if layer == 0:
            tensors += mlp(at + "mlp.", dense)
            continue
        tensors += [(at + "mlp.gate.weight", "BF16", [experts, hidden], "weight"),
                    (at + "mlp.gate.e_score_correction_bias", "F32", [experts], "zero")]
        tensors += mlp(at + "mlp.shared_experts.", inner)
        for expert in range(experts):
            tensors += mlp(f"{at}mlp.experts.{expert}.", inner)
    return config, tensors + head_tensors(vocab, hidden)


def gpt_oss(args):
    hidden, heads, kv_heads, head, inner = 2880, 64, 8, 64, 2880
    layers, experts, vocab = args.layers or 2, args.experts or 128, args.vocab_size
    config = {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head, "num_local_experts": experts,
        "num_experts_per_tok": 4, "intermediate_size": inner, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 150000.0,
        "sliding_window": 128, "layer_types": [("sliding_attention", "full_attention")[i % 2] for i in range(layers)],
        "swiglu_limit": 7.0, "swiglu_alpha": 1.702, "max_position_embeddings": 131072, "vocab_size": vocab,
        "tie_word_embeddings": False, "attention_bias": True, "torch_dtype": "bfloat16",
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                         "original_max_position_embeddings": 4096},
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}
    tensors = [("model.embed_tokens.weight", "BF16", [vocab, hidden], "weight")]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors += [(at + "input_layernorm.weight", "BF16", [hidden], "one"),
                    (at + "post_attention_layernorm.weight", "BF16", [hidden], "one"),
                    (at + "self_attn.sinks", "BF16", [heads], "weight"),
                    (at + "mlp.router.weight", "BF16", [experts, hidden], "weight"),
                    (at + "mlp.router.bias", "BF16", [experts], "weight")]
        for name, rows, columns in (("q_proj", heads * head, hidden), ("k_proj", kv_heads * head, hidden),
                                    ("v_proj", kv_heads * head, hidden), ("o_proj", hidden, heads * head)):
            tensors += [(f"{at}self_attn.{name}.weight", "BF16", [rows, columns], "weight"),
                        (f"{at}self_attn.{name}.bias", "BF16", [rows], "weight")]
        for name, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
            tensors += [(f"{at}mlp.experts.{name}_blocks", "U8", [experts, rows, columns // 32, 16], "bytes"),
                        (f"{at}mlp.experts.{name}_scales", "U8", [experts, rows, columns // 32], "mxfp4 scale"),
                        (f"{at}mlp.experts.{name}_bias", "BF16", [experts, rows], "weight")]
    return config, tensors + head_tensors(vocab, hidden)


def head_tensors(vocab, hidden):
    return [("model.norm.weight", "BF16", [hidden], "one"), ("lm_head.weight", "BF16", [vocab, hidden], "weight")]


def values(kind, size, source):
    """`size` bytes of a tensor of this kind, the next of `source`."""
    if kind == "weight":
        out = bytearray(source.randbytes(size))
        out[1::2] = out[1::2].translate(BF16_HIGH)
        return out
    if kind == "fp8":
        return source.randbytes(size).translate(FP8)
    if kind == "mxfp4 scale":
        return source.randbytes(size).translate(MXFP4_SCALE)
    if kind == "bytes":
        return source.randbytes(size)
    one = {"one": struct.pack("<H", 0x3F80), "scale": struct.pack("<f", FP8_SCALE), "zero": bytes(4)}[kind]
    return one * (size // len(one))


def byte_count(dtype, shape):
    count = BYTES[dtype]
    for n in shape:
        count *= n
    return count


def write_shard(path, tensors, source):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, _ in tensors:
        end = at + byte_count(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, dtype, shape, kind in tensors:
            left = byte_count(dtype, shape)
            while left > 0:
                out.write(values(kind, min(left, CHUNK_BYTES), source))
                left -= min(left, CHUNK_BYTES)


def shards(tensors):
    """Cuts the list where a shard has reached SHARD_BYTES."""
    parts, size = [[]], 0
    for tensor in tensors:
        if size >= SHARD_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += byte_count(tensor[1], tensor[2])
    return parts


def main():
    shapes = {"qwen3-30b-a3b": qwen3, "deepseek-v3": deepseek_v3, "gpt-oss-120b": gpt_oss}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=shapes)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=0, help="default 2")
    parser.add_argument("--experts", type=int, default=0, help="default: as published")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    config, tensors = shapes[args.shape](args)
    try:
        args.folder.mkdir(parents=True)
    except FileExistsError:
        sys.exit(f"{args.folder} exists; a checkpoint is written into a new folder only")
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    source, index, total = random.Random(args.seed), {}, 0
    parts = shards(tensors)
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_shard(args.folder / name, part, source)
        index.update((tensor[0], name) for tensor in part)
        total += sum(byte_count(tensor[1], tensor[2]) for tensor in part)
    (args.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    print(f"{args.folder}: {total / 1e9:.2f} GB in {len(parts)} files")


if __name__ == "__main__":
    main()
