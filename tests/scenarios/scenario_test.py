#!/usr/bin/env python3
"""Routing traces in, table of balance out, compared with table.txt beside this file.

usage: scenario_test.py [--update]     WIDELOAD_PROGRAM names the program

Placements and splits that are fixed by what they stand for (contiguous, tensorrt_llm, deepseek) must give the figures of the
table. Where our own search decides (the policies scenario, with an optimal split, and even, with an even one, repair, ranks that
died) only a worse mean fails. --update writes the table anew.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import traces  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = pathlib.Path(os.environ.get("WIDELOAD_SOURCE_DIR", HERE.parents[1]))
SHARED = pathlib.Path(os.environ.get("WIDELOAD_SHARED", SOURCE / "../shared"))
PROGRAM = os.environ.get("WIDELOAD_PROGRAM", str(SOURCE / "build/release/bin/wideload"))
TABLE = HERE / "table.txt"
SEED = 20250317
SAME = 2e-6  # of figures with five decimals, after rounding on both sides
WORSE = 5e-4
BOUNDS = ("floor", "clairvoyant", "component_bound")


def cases(folder):
    """name -> options of `wideload eplb simulate`"""
    tasks, answers, loads = folder / "tasks.safetensors", folder / "answers.safetensors", folder / "loads.csv"
    made = traces.make_tasks(SEED)
    traces.write_tasks(tasks, made)
    traces.write_answers(answers, made)
    random = traces.Random(SEED)
    loads.write_text("".join(",".join(str(1000 // (1 + random.below(20))) for _ in range(64)) + "\n" for _ in range(4)))
    mixed = ["--routing", tasks, "--iterations", "tokens:256", "--record", "half_per_task"]
    drift = ["--routing", answers, "--iterations", "tokens:512"]
    found = {
        "mixed 8x40": [*mixed, "--ep_size", 8, "--num_slots", 40],
        "mixed 8x48": [*mixed, "--ep_size", 8, "--num_slots", 48],
        "mixed 8x40 two nodes": [*mixed, "--ep_size", 8, "--num_slots", 40, "--nodes", 2, "--num_groups", 4],
        "mixed 8x48 rank 3 dead": [*mixed, "--ep_size", 8, "--num_slots", 48, "--dead_ranks", 3],
        "mixed 8x40 shared expert": [*mixed, "--ep_size", 8, "--num_slots", 40, "--shared_expert_cost", 1],
        "drift 8x40": [*drift, "--ep_size", 8, "--num_slots", 40],
        "drift 8x40 repair 2": [*drift, "--ep_size", 8, "--num_slots", 40, "--repair_slots_per_layer", 2],
        "decode 8x40": ["--routing", answers, "--iterations", "decode:4:150", "--record", "alternate_answers", "--answer_order",
                        "stride:5", "--ep_size", 8, "--num_slots", 40],
        "drawn 16x80": ["--loads", loads, "--ep_size", 16, "--num_slots", 80, "--recorded", 8, "--measured", 16, "--top_k", 4],
    }
    domains = SHARED / "models/wideload-14m/routing.safetensors"
    if domains.exists():
        found["wideload-14m 8x80"] = ["--routing", domains, "--iterations", "tokens:1024", "--record", "half_per_task",
                                      "--ep_size", 8, "--num_slots", 80]
    else:
        print(f"{domains} is not there (WIDELOAD_SHARED): its case is left out")
    return found


def simulate(options):
    command = [PROGRAM, "eplb", "simulate", "--policies", "contiguous,tensorrt_llm,deepseek,even,scenario", "--splits",
               "even,round_robin,optimal,optimal_fractional", "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def is_searched(key):
    case, policy, split = key
    if split == "-":
        return False
    return policy in ("even", "scenario") or "dead" in case or ("repair" in case and policy != "contiguous")


def rows_of(case, report):
    """(case, policy, split) -> figures"""
    rows = {(case, key, "-"): [report[key]] for key in BOUNDS}
    for r in report["results"]:
        if r.get("iterations_above_ceil", 0) != 0:
            raise SystemExit(f"{case}, {r['policy']}: a rank got more than the fractional optimum rounded up")
        rows[case, r["policy"], r["split"]] = [
            r["imbalance_mean"], r["imbalance_p99"], r["slots_fetched_per_layer"],
            *([r["shared_expert"]["imbalance_mean"]] if "shared_expert" in r else [])]
    # What a search does to splits that it is not made for is no figure to hold it to.
    rows = {key: values for key, values in rows.items()
            if not is_searched(key) or (key[2] in ("even", "round_robin")) == (key[1] == "even")}
    return {key: [round(x, 5) for x in values] for key, values in rows.items()}


def text_of(rows):
    lines = ["# case | policy or bound | split | imbalance mean | p99 | slots fetched per layer | mean with shared expert"]
    lines += [" | ".join([*key, *(f"{x:.5f}" for x in values)]) for key, values in rows.items()]
    return "\n".join(lines) + "\n"


def read_table():
    rows = {}
    for line in TABLE.read_text().splitlines()[1:]:
        fields = line.split(" | ")
        rows[tuple(fields[:3])] = [float(x) for x in fields[3:]]
    return rows


def differences(wanted, rows):
    for key, values in rows.items():
        if key not in wanted:
            yield f"{' | '.join(key)}: is not in the table; found {values}"
            continue
        if is_searched(key):
            is_same = values[0] <= wanted[key][0] + WORSE and len(values) == len(wanted[key])
        else:
            is_same = len(values) == len(wanted[key]) and all(abs(a - b) < SAME for a, b in zip(values, wanted[key]))
        if not is_same:
            yield f"{' | '.join(key)}: found {values}; the table has {wanted[key]}"
    of_missing_cases = {key[0] for key in wanted} - {key[0] for key in rows}
    for key in wanted:
        if key not in rows and key[0] not in of_missing_cases:
            yield f"{' | '.join(key)}: is in the table only"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the table anew")
    update = parser.parse_args().update
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, options in cases(pathlib.Path(folder)).items():
            rows.update(rows_of(case, simulate(options)))
    if update:
        TABLE.write_text(text_of(rows))
        print(f"wrote {TABLE}")
        return 0
    found = list(differences(read_table(), rows))
    print("\n".join(found) if found else f"{len(rows)} rows as in the table")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
