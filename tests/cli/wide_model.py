#!/usr/bin/env python3
"""Makes a model folder with as many tensors as a very large model has, whose weights are holes in sparse files.

usage: wide_model.py FOLDER [--tensors N] [--shards S]    one shard is model.safetensors without an index
"""
import argparse
import json
import pathlib
import struct

EXPERTS = 384
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
SHAPE, TENSOR_BYTES = [16, 64], 2 * 16 * 64
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 320, "hidden_size": 64,
    "intermediate_size": 64, "moe_intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_experts": EXPERTS, "num_experts_per_tok": 8, "norm_topk_prob": True, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "hidden_act": "silu", "eos_token_id": 0}


def tensor_names(count):
    """The first `count` expert weights, layer by layer."""
    for i in range(count):
        expert, projection = divmod(i, len(PROJECTIONS))
        layer, expert = divmod(expert, EXPERTS)
        yield f"model.layers.{layer}.mlp.experts.{expert}.{PROJECTIONS[projection]}.weight"


def write_shard(path, names):
    """Returns the bytes of the header."""
    header = {name: {"dtype": "BF16", "shape": SHAPE, "data_offsets": [i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES]}
              for i, name in enumerate(names)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as the format's own library does
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + len(names) * TENSOR_BYTES)
    return len(text)


def make(folder, num_tensors=200_000, num_shards=61):
    """Returns the bytes of all headers and the index."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensor_names(num_tensors))
    layers = num_tensors // (EXPERTS * len(PROJECTIONS)) + 1
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    if num_shards == 1:
        return write_shard(folder / "model.safetensors", names)
    text_bytes, weight_map = 0, {}
    for s in range(num_shards):
        shard = f"model-{s + 1:05}-of-{num_shards:05}.safetensors"
        own = names[s * num_tensors // num_shards:(s + 1) * num_tensors // num_shards]
        text_bytes += write_shard(folder / shard, own)
        weight_map.update(dict.fromkeys(own, shard))
    index = json.dumps({"metadata": {"total_size": num_tensors * TENSOR_BYTES}, "weight_map": weight_map}, indent=2)
    (folder / "model.safetensors.index.json").write_text(index)
    return text_bytes + len(index)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--tensors", type=int, default=200_000)
    parser.add_argument("--shards", type=int, default=61)
    arguments = parser.parse_args()
    print(make(arguments.folder, arguments.tensors, arguments.shards), "bytes of headers and index")


if __name__ == "__main__":
    main()
