#!/usr/bin/env python3
"""Feeds the program hostile files, limits and signals, and says what it does that it may not.

usage: soak_hostile.py [--minutes M] [--seed S] [--program PATH]

Each round takes a good command, spoils one of its files (bytes, sizes, numbers, nesting, names, links), its flags or
what the system gives it (memory, threads, descriptors, file size, a signal), and runs it. Whatever happens, the program
must end by itself within its time with the exit code 0, 1 or 2, or 128 + the signal that it was sent; say why when that
is not 0; never end by a check, an abort or a fault; take no more memory than it may; leave every input as it was, and
nothing but its output beside it. Prints each finding with its seed, and keeps its folder.
"""
import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/release/bin/wideload"
MODEL = ROOT / "models/wideload-14m"
TINY = ROOT / "testdata/models/tiny-qwen3-moe"
STATISTICS = ROOT / "testdata/statistics/small"

TIME_S = 60
MEMORY_BYTES = 3 << 30  # of addresses; a good run of these commands needs a third
NUMBERS = ["0", "-1", "1", "2", "7", "255", "65536", "1e9", "2147483647", "2147483648", "4294967296", "9223372036854775807",
           "9223372036854775808", "18446744073709551616", "1e308", "1e-308", "nan", "inf", "-inf", "", "x", "0x10", "1_0", " 1"]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1e308, -0.0, "", "a" * 1000, [], {}, [[]], [None], {"a": {}}]


def good_commands(folder):
    """(arguments, inputs, output or None) of commands that succeed; every file is the folder's own."""
    def text(name, content):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder / name
    tiny, statistics = folder / "tiny", folder / "statistics"
    shutil.copytree(TINY, tiny)
    shutil.copytree(STATISTICS, statistics)
    tokenizer = folder / "tokenizer.json"
    shutil.copy(MODEL / "tokenizer.json", tokenizer)
    ids = text("ids.json", [[1, 2, 3], [4, 5]])
    rows = text("rows.jsonl", "".join(json.dumps({"task_id": i, "input_ids": [1, 2 + i], "output_tokens": 3}) + "\n"
                                      for i in range(6)))
    texts = text("texts.json", ["one text", "two\u20ac \U0001f600"])
    loads = text("loads.csv", "9,2,3,1\n4,4,4,9\n")
    plan = text("plan.yaml", "num_slots: 6\ninitial_global_assignments:\n  0: [0, 1, 2, 2, 3, 3]\n  1: [0, 1, 2, 3, 3, 3]\n")
    prompt = text("prompt.txt", "Once upon a time")
    out = folder / "out"
    engine = ["--threads", "1"]
    recorded = ["eplb", "plan", "--expert_statistic_path", statistics, "--num_slots", "40"]
    return [
        (["logits", "-m", tiny, "--input-ids", ids, "--output", out, *engine], [tiny, ids], out),
        (["bench", "throughput", "-m", tiny, "--dataset", rows, "--output", out, *engine], [tiny, rows], out),
        (["bench", "throughput", "-m", tiny, "--dataset", rows, "--output", out, "--ep", "4", "--num-slots", "32", *engine],
         [tiny, rows], out),
        (["generate", "-f", prompt, "-n", "4", "--json", "--logprobs", "3", *engine], [prompt], None),
        (["tokenize", "-m", tokenizer, "-i", texts, "-o", out], [tokenizer, texts], out),
        (["inspect", tiny], [tiny], None),
        ([*recorded, "--output_path", out], [statistics], out),
        (["eplb", "plan", "--loads", loads, "--ep_size", "2", "--num_slots", "6", "--output_path", out], [loads], out),
        (["eplb", "repair", "--loads", loads, "--ep_size", "2", "--from", plan, "--output_path", out], [loads, plan], out),
        (["eplb", "report", "--expert_statistic_path", statistics, "--html", out], [statistics], out),
        (["eplb", "convert", loads, folder / "out.json"], [loads], folder / "out.json"),
        (["eplb", "check", plan, "--ep_size", "2"], [plan], None),
        (["eplb", "simulate", "--loads", loads, "--ep_size", "2", "--num_slots", "6"], [loads], None),
        (["eplb", "diagnose", "--loads", loads, "--ep_size", "2", "--num_slots", "6"], [loads], None),
    ]


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
    spare = ["--max-seq-len", "--max-num-tokens", "--max-batch-size", "--kv-cache-memory", "--ep", "--num-slots", "--threads",
             "--moe-max-num-tokens", "--top-k", "--top-p", "--temperature", "--repetition-penalty", "--seed", "-n", "--logprobs",
             "--concurrency", "--num-requests", "--ep_size", "--num_slots", "--nodes", "--num_groups", "--layers", "--seed",
             "--placement", "--iter_start", "--max_fetched_slots", "--until"]
    arguments = list(arguments)
    numbers = [i for i, a in enumerate(arguments) if i > 0 and str(a).isdigit()]
    if numbers and dice.random() < 0.4:
        arguments[dice.choice(numbers)] = dice.choice(NUMBERS)
    else:
        arguments += [dice.choice(spare), dice.choice(NUMBERS)]
    return arguments


class Finding(Exception):
    pass


class Round:
    def __init__(self, seed, program):
        self.dice = random.Random(seed)
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"wideload-hostile-{seed}-"))

    def run(self):
        """Errors: Finding."""
        dice = self.dice
        arguments, inputs, output = dice.choice(good_commands(self.folder))
        limits, sent = {}, None
        what = dice.randrange(10)
        if what < 4:
            spoil_input(inputs, dice)
        elif what < 7:
            arguments = spoil_flags(arguments, dice)
        elif what == 7:
            limits = dice.choice([{resource.RLIMIT_AS: dice.randrange(20, 400) << 20}, {resource.RLIMIT_NOFILE: dice.randrange(3, 24)},
                                  {resource.RLIMIT_FSIZE: dice.randrange(0, 20000)}, {resource.RLIMIT_STACK: 1 << 18}])
        elif what == 8:
            sent = dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        else:  # an output that is an input, or is nowhere
            target = dice.choice([*inputs, self.folder / "none/out", self.folder, "/dev/full", "/dev/null", "/dev/stdout", "-"])
            arguments = [target if output is not None and a == output else a for a in arguments]
        self.command = " ".join(map(str, arguments))
        before = self.snapshot()
        code, stderr = self.execute(arguments, limits, sent)
        self.judge(code, stderr, limits, sent, before, output)

    def snapshot(self):
        files = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink():
                files[path] = os.readlink(path)
            elif path.is_file():
                files[path] = path.read_bytes()
        return files

    def execute(self, arguments, limits, sent):
        def limit():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for kind, value in {resource.RLIMIT_AS: MEMORY_BYTES, **limits}.items():
                resource.setrlimit(kind, (value, value))
        with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as out:
            process = subprocess.Popen([str(self.program), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err, preexec_fn=limit, cwd=self.folder)
            try:
                if sent is not None:
                    try:
                        process.wait(self.dice.random() * 0.4)
                    except subprocess.TimeoutExpired:
                        process.send_signal(sent)
                code = process.wait(TIME_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Finding(f"still runs after {TIME_S} s") from None
            err.seek(0)
            out.seek(0)
            stderr = err.read().decode(errors="replace")
            # What inspect finds is its answer, not an error of its run.
            return code, stderr + ("error" if b"cannot be run" in out.read(1 << 20) else "")

    def judge(self, code, stderr, limits, sent, before, output):
        said = stderr[-2000:]
        allowed = {0, 1, 2}
        if sent is not None:
            allowed |= {128 + sent, -sent}
        if resource.RLIMIT_FSIZE in limits:
            allowed.add(-signal.SIGXFSZ)
        if code == 127 and resource.RLIMIT_AS in limits or code == 127 and resource.RLIMIT_NOFILE in limits:
            return  # the system could not load the program
        if code not in allowed:
            raise Finding(f"exit code {code}: {said}")
        for word in ("check failed", "terminate called", "internal error", "AddressSanitizer", "runtime error"):
            if word in stderr:
                raise Finding(f"'{word}', exit code {code}: {said}")
        if code in (1, 2) and "error" not in stderr:
            raise Finding(f"exit code {code} without a word of why: {said}")
        after = self.snapshot()
        for path, content in before.items():
            if path != output and after.get(path) != content:
                raise Finding(f"{path} was changed: {said}")
        left = [str(path) for path in after if path not in before and path != output]
        if left and sent != signal.SIGKILL:
            raise Finding(f"left {left}: {said}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each has the next one")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many; 0: until the time is over")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    options = parser.parse_args()
    end, seed, num_found = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < end and (options.rounds == 0 or seed < options.seed + options.rounds):
        one = Round(seed, options.program.resolve())
        try:
            one.run()
            shutil.rmtree(one.folder)
        except Finding as finding:
            num_found += 1
            print(f"FOUND with --seed {seed} ({one.folder}): wideload {one.command}\n  {finding}", flush=True)
        seed += 1
    print(f"{seed - options.seed} hostile runs, {num_found} findings", flush=True)
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())
