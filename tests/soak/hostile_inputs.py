"""Commands of the program that succeed, with the files they read, and what spoils files and flags."""
import json
import pathlib
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/wideload-14m"
TINY = ROOT / "testdata/models/tiny-qwen3-moe"
STATISTICS = ROOT / "testdata/statistics/small"
FOREIGN = ROOT / "testdata/fuzz"

NUMBERS = ["0", "-1", "1", "2", "7", "255", "65536", "1e9", "2147483647", "2147483648", "4294967296", "9223372036854775807",
           "9223372036854775808", "18446744073709551616", "1e308", "1e-308", "nan", "inf", "-inf", "", "x", "0x10", "1_0", " 1"]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1e308, -0.0, "", "a" * 1000, [], {}, [[]], [None], {"a": {}}]


ENGINE_FLAGS = ["--max-seq-len", "--max-num-tokens", "--max-batch-size", "--kv-cache-memory", "--ep", "--num-slots", "--threads",
                "--moe-max-num-tokens", "--top-k", "--top-p", "--min-p", "--temperature", "--repetition-penalty", "--seed", "-n",
                "--logprobs", "--concurrency", "--num-requests", "--max-tokens", "--warmup", "--placement", "--deadline",
                "--spare-slots", "--migration-bandwidth", "--presence-penalty"]
EPLB_FLAGS = ["--ep_size", "--num_slots", "--nodes", "--num_groups", "--layers", "--seed", "--iter_start", "--iter_stop",
              "--max_fetched_slots", "--until", "--cross_node_slots", "--fetch_price", "--layer_updates_per_iter", "--num_experts",
              "--tokens_per_iteration", "--tokens_per_rank", "--top_k", "--wobble", "--recorded", "--measured", "--max_layers",
              "--dead_ranks", "--repair_slots_per_layer", "--shared_expert_cost", "--hot", "--mtp_layers"]

# Recordings of other engines, of 2 to 5 experts: the name that its format has, the file, the placement that it needs.
RECORDINGS = [("counts.json", "engine_files/counts"), ("steps.json", "engine_files/steps"), ("pass.json", "engine_files/pass"),
              ("stats.jsonl", "engine_files/stats"), ("pairs.csv", "engine_files/pairs"), ("matrix.npy", "npy/matrix"),
              ("loads.npz", "torch_file/npz"), ("stat.pt", "torch_file/stat"), ("pass.pt", "torch_file/pass")]
PLACEMENTS = [("mapping.jsonl", "engine_files/mapping"), ("expert_map.json", "engine_files/expert_map")]


class Files:
    """Makes the files of good commands in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"

    def text(self, name, content):
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return self.folder / name

    def copy(self, source, name=None):
        target = self.folder / (name or source.name)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return target


def engine_commands(files):
    """(arguments, inputs, output or None) of commands that succeed; every file is the folder's own."""
    tiny, tokenizer = files.copy(TINY, "tiny"), files.copy(MODEL / "tokenizer.json")
    ids = files.text("ids.json", [[1, 2, 3], [4, 5]])
    rows = files.text("rows.jsonl", "".join(json.dumps({"task_id": i, "input_ids": [1, 2 + i], "output_tokens": 3}) + "\n"
                                            for i in range(6)))
    texts = files.text("texts.json", ["one text", "two\u20ac \U0001f600"])
    prompt = files.text("prompt.txt", "Once upon a time")
    config = files.text("run.yaml", "max_batch_size: 8\nmax_num_tokens: 64\ntemperature: 0.5\nkv_cache_config: {free_gpu_memory_fraction: 0.2}\n"
                                    "moe_config:\n  load_balancer: {num_slots: 64}\n")
    template = files.text("template.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}")
    chats = files.text("chats.json", [{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True}])
    out, engine = files.out, ["--threads", "1"]
    bench = ["bench", "throughput", "-m", tiny, "--dataset", rows, "--output", out, *engine]
    return [
        (["logits", "-m", tiny, "--input-ids", ids, "--output", out, *engine], [tiny, ids], out),
        (bench, [tiny, rows], out),
        ([*bench, "--ep", "4", "--num-slots", "32"], [tiny, rows], out),
        (["generate", "-f", prompt, "-n", "4", "--json", "--logprobs", "3", *engine], [prompt], None),
        (["generate", "-f", prompt, "-n", "4", "-c", config, *engine], [prompt, config], None),
        (["tokenize", "-m", tokenizer, "-i", texts, "-o", out], [tokenizer, texts], out),
        (["tokenize", "-m", tokenizer, "--decode", "-i", ids, "-o", out], [tokenizer, ids], out),
        (["apply-template", "--chat-template", template, "-i", chats, "-o", out], [template, chats], out),
        (["inspect", tiny], [tiny], None),
        (["config", "check", config], [config], None),
        (["config", "show", "-m", tiny, "-c", config], [tiny, config], None),
    ]


def eplb_commands(files, dice):
    """The same of `wideload eplb`; of another engine's recording that is drawn, too."""
    loads = files.text("loads.csv", "9,2,3,1\n4,4,4,9\n")
    plan = files.text("plan.yaml", "num_slots: 6\ninitial_global_assignments:\n  0: [0, 1, 2, 2, 3, 3]\n  1: [0, 1, 2, 3, 3, 3]\n")
    statistics = files.copy(STATISTICS, "statistics")
    wide = files.text("wide.yaml", "num_slots: 18\ninitial_global_assignments:\n"
                                   + "".join(f"  {i}: [{', '.join(map(str, [*range(16), 3, 7]))}]\n" for i in range(4)))
    tiny = files.folder / "tiny"
    out = files.out
    name, source = dice.choice(RECORDINGS)
    foreign = files.copy(FOREIGN / source, name)
    placement_name, placement_source = dice.choice(PLACEMENTS)
    placement = files.copy(FOREIGN / placement_source, placement_name)
    array = f"{foreign}:load" if name.endswith(".npz") else foreign
    target = files.folder / dice.choice(["to.csv", "to.npy", "to.jsonl", "to.json", "to.safetensors", "to.yaml", "to"])
    sizes = ["--ep_size", "2", "--num_slots", "6"]
    small = ["--top_k", "2", "--recorded", "4", "--measured", "4"]
    recorded = ["--expert_statistic_path", statistics]
    return [
        (["eplb", "plan", *recorded, "--num_slots", "40", "--output_path", out], [statistics], out),
        *[(["eplb", "plan", "--loads", loads, *sizes, "--policy", policy, "--output_path", out], [loads], out)
          for policy in ("contiguous", "tensorrt_llm", "deepseek", "even", "scenario")],
        (["eplb", "repair", "--loads", loads, "--ep_size", "2", "--from", plan, "--output_path", out], [loads, plan], out),
        (["eplb", "report", *recorded, "--html", out], [statistics], out),
        (["eplb", "report", "--loads", loads, "--ep_size", "2", "--projection_eplb_config_path", plan], [loads, plan], None),
        (["eplb", "check", wide, "--ep_size", "2", "--model", tiny], [wide, tiny], None),
        (["eplb", "check", placement, "--ep_size", "2", "--model", tiny], [placement, tiny], None),
        (["eplb", "convert", wide, files.folder / "map.json", "--engine", "vllm_ascend", "--ep_size", "2"], [wide],
         files.folder / "map.json"),
        (["eplb", "simulate", "--loads", loads, *sizes, *small], [loads], None),
        (["eplb", "diagnose", "--loads", loads, *sizes], [loads], None),
        (["eplb", "convert", loads, files.folder / "out.json"], [loads], files.folder / "out.json"),
        (["eplb", "report", "--loads", array, "--ep_size", "1"], [foreign], None),
        (["eplb", "plan", "--loads", array, "--ep_size", "2", "--output_path", out], [foreign], out),
        (["eplb", "diagnose", "--loads", array, "--ep_size", "2"], [foreign], None),
        (["eplb", "simulate", "--loads", array, "--ep_size", "2", "--num_slots", "4", "--top_k", "1"], [foreign], None),
        (["eplb", "convert", array, target], [foreign], target),
        (["eplb", "convert", placement, target, "--ep_size", "2"], [placement], target),
    ]


def good_commands(folder, dice):
    files = Files(folder)
    return [*engine_commands(files), *eplb_commands(files, dice)]


def spoil_json(value, dice):
    """The same document with one member or element changed, removed, or repeated very often."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        what = dice.randrange(4)
        if what == 0:
            del value[key]
        elif what == 1:
            value[key] = dice.choice(VALUES)
        else:
            value[key] = spoil_json(value[key], dice)
        return value
    if isinstance(value, list) and value and dice.random() < 0.9:
        i = dice.randrange(len(value))
        value[i] = dice.choice(VALUES) if dice.random() < 0.5 else spoil_json(value[i], dice)
        return value * dice.choice([1, 1, 1, 300])
    return dice.choice(VALUES)


def spoil_safetensors(data, dice):
    (size,) = struct.unpack("<Q", data[:8])
    if dice.random() < 0.2 or size > len(data):
        return struct.pack("<Q", dice.choice([0, 1, size - 1, size + 1, 2**32, 2**63, 2**64 - 1])) + data[8:]
    text = json.dumps(spoil_json(json.loads(data[8:8 + size]), dice)).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size:]


def spoil_bytes(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 4, 64])):
        at = dice.randrange(len(data) + 1)
        what = dice.randrange(5)
        if what == 0:
            del data[at:at + dice.choice([1, 8, 1000, 10**9])]
        elif what == 1:
            data[at:at] = bytes(dice.randrange(256) for _ in range(dice.choice([1, 8, 100])))
        elif what == 2:
            data[at:at] = data[max(0, at - 50):at] * dice.choice([2, 1000])
        elif what == 3:
            data[at:at] = dice.choice(NUMBERS).encode()
        elif at < len(data):
            data[at] = dice.randrange(256)
    return bytes(data[:64 << 20])


def spoil_file(path, dice):
    what = dice.randrange(12)
    data = path.read_bytes()
    if what == 0:
        path.unlink()
    elif what == 1:
        path.write_bytes(b"")
    elif what == 2:
        path.write_bytes(dice.choice([b"[" * 100000, b"{\"a\":" * 100000, b"[{}" + b",{}" * 200000 + b"]", b"\0" * 1000000,
                                      b"\xff" * 5000, b"\xef\xbb\xbf" + data, b"1," * 500000 + b"1\n"]))
    elif what == 3:
        path.unlink()
        path.symlink_to(dice.choice(["/dev/zero", "/dev/null", path.name, "/proc/self/mem", "/", "missing"]))
    elif what < 8 and path.suffix in (".json", ".jsonl"):
        lines = data.decode(errors="replace").splitlines() if path.suffix == ".jsonl" else [data.decode(errors="replace")]
        i = dice.randrange(len(lines))
        lines[i] = json.dumps(spoil_json(json.loads(lines[i]), dice))
        path.write_text("\n".join(lines))
    elif what < 8 and path.suffix == ".safetensors":
        path.write_bytes(spoil_safetensors(data, dice))
    else:
        path.write_bytes(spoil_bytes(data, dice))


def spoil_input(inputs, dice):
    path = dice.choice(inputs)
    if path.is_dir():
        path = dice.choice(sorted(p for p in path.iterdir() if p.is_file() and not p.name.endswith(".md")))
    spoil_file(path, dice)


def spoil_flags(arguments, dice):
    spare = ENGINE_FLAGS if arguments[0] != "eplb" else EPLB_FLAGS
    arguments = list(arguments)
    numbers = [i for i, a in enumerate(arguments) if i > 0 and str(a).isdigit()]
    if numbers and dice.random() < 0.4:
        arguments[dice.choice(numbers)] = dice.choice(NUMBERS)
    else:
        arguments += [dice.choice(spare), dice.choice(NUMBERS)]
    return arguments
