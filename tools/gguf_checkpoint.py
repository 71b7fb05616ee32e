#!/usr/bin/env python3
"""Writes a Hugging Face folder of Qwen3-MoE in bf16 as a GGUF file, the weights' bits as they are, for measurements beside llama.cpp.

    gguf_checkpoint.py FOLDER FILE

Norms and routers become fp32, as llama.cpp wants them. The file has no tokenizer: such a model is run with token ids. Needs the packages
gguf and numpy. FILE must not exist.
"""
import argparse
import json
import pathlib
import struct
import sys

import gguf
import numpy

# Names of a layer's tensors without the experts', and whether they stay bf16.
LAYER = {"input_layernorm": ("attn_norm", False), "post_attention_layernorm": ("ffn_norm", False),
         "self_attn.q_norm": ("attn_q_norm", False), "self_attn.k_norm": ("attn_k_norm", False),
         "self_attn.q_proj": ("attn_q", True), "self_attn.k_proj": ("attn_k", True), "self_attn.v_proj": ("attn_v", True),
         "self_attn.o_proj": ("attn_output", True), "mlp.gate": ("ffn_gate_inp", False)}
EXPERT = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


class Folder:
    """bf16 tensors of a folder's safetensors files by name, as arrays of their 16 bits."""

    def __init__(self, folder):
        self.at = {}
        for path in sorted(folder.glob("*.safetensors")):
            content = numpy.memmap(path, numpy.uint8, "r")
            size = struct.unpack("<Q", content[:8].tobytes())[0]
            for name, entry in json.loads(content[8:8 + size].tobytes()).items():
                if name != "__metadata__":
                    self.at[name] = (content[8 + size:], entry)

    def tensor(self, name):
        content, entry = self.at[name]
        if entry["dtype"] != "BF16":
            sys.exit(f"{name} is {entry['dtype']}; only BF16 is converted")
        begin, end = entry["data_offsets"]
        return content[begin:end].view(numpy.uint16).reshape(entry["shape"])


def add(writer, name, bits, stays_bf16):
    if stays_bf16:  # the type's shape is counted in bytes
        writer.add_tensor(name, bits.view(numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, (bits.astype(numpy.uint32) << 16).view(numpy.float32))


def write_config(writer, config):
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def write_tensors(writer, folder, config):
    embedding = folder.tensor("model.embed_tokens.weight")
    add(writer, "token_embd.weight", embedding, True)
    for layer in range(config["num_hidden_layers"]):
        for name, (to, stays_bf16) in LAYER.items():
            add(writer, f"blk.{layer}.{to}.weight", folder.tensor(f"model.layers.{layer}.{name}.weight"), stays_bf16)
        for name, to in EXPERT.items():
            add(writer, f"blk.{layer}.{to}.weight", numpy.stack(
                [folder.tensor(f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight") for expert in range(config["num_experts"])]), True)
    add(writer, "output_norm.weight", folder.tensor("model.norm.weight"), False)
    add(writer, "output.weight", embedding if config["tie_word_embeddings"] else folder.tensor("lm_head.weight"), True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("file", type=pathlib.Path)
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    if config["architectures"] != ["Qwen3MoeForCausalLM"] or config["mlp_only_layers"] or config["decoder_sparse_step"] != 1:
        sys.exit(f"{args.folder} is not Qwen3-MoE with experts in every layer")
    if args.file.exists():
        sys.exit(f"{args.file} exists")
    writer = gguf.GGUFWriter(args.file, "qwen3moe")
    write_config(writer, config)
    write_tensors(writer, Folder(args.folder), config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
