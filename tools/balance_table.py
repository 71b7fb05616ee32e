#!/usr/bin/env python3
"""Balance of placements on recorded and sampled routing, beside the goals: a table for docs/benchmarks.md.

usage: balance_table.py [--program FILE] [--data DIR] [--models DIR] [--only WORD] [--seed N] [--seeds K] [--even]

Each row is K runs of `wideload eplb simulate --json` with seeds N, N + 1, ..; the figures are means over iterations, layers
and seeds, and the range over seeds of the scenario policy's. The last row is `eplb plan` for one workload and `eplb repair
--until 0.01` for another, seed N. With --even the rows are instead for an even split: the
policy even beside the greedy one, and the geometric mean of their ratio over the recorded traces.
DATA holds the routing and load files
(WIDELOAD_SHARED/data), MODELS the folder with wideload-14m/routing.safetensors.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SHARED = pathlib.Path(os.environ.get("WIDELOAD_SHARED", "../shared"))
R1 = ["--loads", "DATA/deepseek-r1-gpqa-like-loads.safetensors:load", "--tokens_per_rank", "128", "--wobble", "0.1",
      "--recorded", "20", "--measured", "100", "--top_k", "8"]
GPT = ["--routing", "DATA/gpt-oss-20b-routing.safetensors"]
PREFILL = GPT + ["--iterations", "tokens:4096", "--answer_order", "stride:101", "--record", "half"]
DECODE = GPT + ["--iterations", "decode:4:400", "--record", "alternate_answers"]
DRIFT = GPT + ["--iterations", "tokens:4096", "--answer_order", "file", "--record", "half"]
LITE = ["--routing", "DATA/deepseek-v2-lite-routing.safetensors", "--iterations", "tokens:1024", "--record", "half_per_task"]
WIDE = ["--routing", "MODELS/wideload-14m/routing.safetensors", "--iterations", "tokens:1024", "--record", "half_per_task"]

CASES = [  # name, ranks, slots, options, goal
    ("R1-like", 36, 288, R1, 0.022),
    ("R1-like", 32, 288, R1, 0.008),
    ("R1-like", 36, 324, R1, 0.0002),
    ("R1-like", 64, 320, R1, 0.013),
    ("GPT-OSS-20B prefill", 8, 40, PREFILL, 0.006),
    ("GPT-OSS-20B prefill", 8, 48, PREFILL, 0.0003),
    ("GPT-OSS-20B decode", 8, 40, DECODE, 0.030),
    ("GPT-OSS-20B decode", 16, 48, DECODE, 0.085),
    ("GPT-OSS-20B drift", 8, 40, DRIFT, 0.07),
    ("GPT-OSS-20B drift, repair of 2", 8, 40, DRIFT + ["--repair_slots_per_layer", "2"], 0.03),
    ("DeepSeek-V2-Lite mixed", 8, 72, LITE, 0.02),
    ("DeepSeek-V2-Lite mixed", 16, 80, LITE, 0.05),
    ("wideload-14m nine domains", 8, 80, WIDE, 0.05),
    ("wideload-14m nine domains", 8, 96, WIDE, 0.006),
]

EVEN_CASES = [
    ("GPT-OSS-20B prefill", 8, 40),
    ("GPT-OSS-20B prefill", 8, 48),
    ("GPT-OSS-20B decode", 16, 48),
    ("GPT-OSS-20B drift", 8, 40),
    ("DeepSeek-V2-Lite mixed", 8, 72),
    ("DeepSeek-V2-Lite mixed", 16, 80),
    ("wideload-14m nine domains", 8, 80),
    ("wideload-14m nine domains", 8, 96),
    ("R1-like", 36, 288),
    ("R1-like", 32, 288),
    ("R1-like", 64, 320),
]

REPAIR = ("R1 1k1k -> 8k1k", 32, 288, "DATA/deepseek-r1-expert-counts.safetensors:", 2)  # goal: fetches per layer


def eplb(options, *words, seed=None):
    words = [str(word).replace("DATA", str(options.data)).replace("MODELS", str(options.models)) for word in words]
    command = [options.program, "eplb", *words, "--seed", str(options.seed if seed is None else seed), "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    return json.loads(run.stdout)


def simulate(options, ranks, slots, place, seed):
    """Figures of one run by column."""
    result = eplb(options, "simulate", "--ep_size", ranks, "--num_slots", slots, "--policies", "tensorrt_llm,scenario",
                  "--splits", "even,optimal,optimal_fractional", *place, seed=seed)
    of = {(row["policy"], row["split"]): row for row in result["results"]}
    ours = of["scenario", "optimal_fractional"]
    return {"greedy": of["tensorrt_llm", "even"]["imbalance_mean"], "clairvoyant": result["clairvoyant"],
            "scenario": ours["imbalance_mean"], "integer": of["scenario", "optimal"]["imbalance_mean"],
            "p99": ours["imbalance_p99"], "bound": result["component_bound"]}


def even_split(options):
    """The policy even beside greedy, both under an even split."""
    print(f"{'case':26} {'ranks':>5} {'slots':>5} {'greedy':>8} {'even':>8} {'(over seeds)':>17} {'ratio':>6} {'p99 greedy':>10} {'even':>7}"
          f" {'plan ms':>8}")
    ratios = []
    for name, ranks, slots in EVEN_CASES:
        place = next(options_ for case, _, _, options_, _ in CASES if case == name)
        if options.only not in name:
            continue
        runs = []
        for k in range(options.seeds):
            result = eplb(options, "simulate", "--ep_size", ranks, "--num_slots", slots, "--policies", "tensorrt_llm,even",
                          "--splits", "even", *place, seed=options.seed + k)
            runs.append({row["policy"]: row for row in result["results"]})
        greedy = statistics.fmean(run["tensorrt_llm"]["imbalance_mean"] for run in runs)
        found = [run["even"]["imbalance_mean"] for run in runs]
        even = statistics.fmean(found)
        if "R1" not in name:
            ratios.append(even / greedy)
        print(f"{name:26} {ranks:5} {slots:5} {greedy:8.4f} {even:8.4f} {f'({min(found):.4f}-{max(found):.4f})':>17} {even / greedy:6.3f}"
              f" {runs[0]['tensorrt_llm']['imbalance_p99']:10.4f} {runs[0]['even']['imbalance_p99']:7.4f}"
              f" {statistics.fmean(run['even']['plan_ms_per_layer'] for run in runs):8.1f}", flush=True)
    if ratios:
        print(f"geometric mean of the recorded traces: {statistics.geometric_mean(ratios):.4f}")


def repair(options):
    name, ranks, slots, loads, goal = REPAIR
    with tempfile.TemporaryDirectory() as folder:
        plan, repaired = pathlib.Path(folder, "plan.yaml"), pathlib.Path(folder, "repaired.yaml")
        eplb(options, "plan", "--loads", loads + "1k1k", "--policy", "scenario", "--ep_size", ranks, "--num_slots", slots,
             "--output_path", plan)
        result = eplb(options, "repair", "--from", plan, "--loads", loads + "8k1k", "--until", 0.01, "--output_path", repaired)
    reached = result["slots_fetched_per_layer"] <= goal and result["layers_above_until"] == 0
    print(f"{name}, {ranks} ranks, {slots} slots, repair --until 0.01: imbalance {result['imbalance_before']:.4f} ->"
          f" {result['imbalance_after']:.4f}, {result['layers_above_until']} layers above, {result['slots_fetched_per_layer']:.2f}"
          f" slots fetched per layer (goal {goal}) {'reached' if reached else 'MISSED'}, {result['repair_ms_per_layer']:.2f} ms a layer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/wideload")
    parser.add_argument("--data", default=SHARED / "data")
    parser.add_argument("--models", default=SHARED / "models")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--even", action="store_true")
    options = parser.parse_args()
    if options.even:
        return even_split(options)
    print(f"{'case':32} {'ranks':>5} {'slots':>5} {'greedy even':>11} {'clairvoyant':>11} {'scenario':>9} {'(over seeds)':>17}"
          f" {'integer':>9} {'p99':>7} {'bound':>7} {'goal':>7}        {'s':>5}")
    for name, ranks, slots, place, goal in CASES:
        if options.only not in name:
            continue
        begin = time.monotonic()
        runs = [simulate(options, ranks, slots, place, options.seed + k) for k in range(options.seeds)]
        mean = {column: statistics.fmean(run[column] for run in runs) for column in runs[0]}
        found = [run["scenario"] for run in runs]
        reached = "reached" if mean["scenario"] <= goal else "MISSED"
        print(f"{name:32} {ranks:5} {slots:5} {mean['greedy']:11.4f} {mean['clairvoyant']:11.4f} {mean['scenario']:9.5f}"
              f" {f'({min(found):.4f}-{max(found):.4f})':>17} {mean['integer']:9.5f} {mean['p99']:7.4f} {mean['bound']:7.4f}"
              f" {goal:7.4f} {reached:7} {time.monotonic() - begin:5.0f}", flush=True)
    if options.only in REPAIR[0]:
        repair(options)


if __name__ == "__main__":
    main()
