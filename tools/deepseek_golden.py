#!/usr/bin/env python3
"""Writes testdata/eplb/deepseek_golden.json: plans of DeepSeek's balancer by a plain second implementation.

Written from the description of the algorithm, with linear scans and nested lists, so that it shares nothing with
src/eplb/policies/deepseek_policy.cc. Loads are distinct integers below 2^20: sums of groups are exact in single precision.
Usage: tools/deepseek_golden.py [OUTPUT]
"""
import json
import pathlib
import sys

import numpy

# slots, groups, nodes, ranks, experts
CASES = [(16, 1, 1, 4, 12), (24, 4, 2, 8, 16), (40, 1, 1, 8, 32), (36, 3, 2, 6, 30), (80, 8, 4, 16, 64),
         (64, 8, 8, 64, 64), (288, 1, 1, 36, 256), (288, 8, 4, 32, 256)]


def pack(weights, num_packs):
    """Heaviest first, each into the lightest pack with room; returns [(pack, place)] per item."""
    room = len(weights) // num_packs
    if room == 1:
        return [(i, 0) for i in range(len(weights))]
    heavy_first = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    totals = [numpy.float32(0)] * num_packs
    filled = [0] * num_packs
    result = [None] * len(weights)
    for i in heavy_first:
        lightest = None
        for p in range(num_packs):
            if filled[p] < room and (lightest is None or totals[p] < totals[lightest]):
                lightest = p
        result[i] = (lightest, filled[lightest])
        filled[lightest] += 1
        totals[lightest] = numpy.float32(totals[lightest] + weights[i])
    return result


def replicate(weights, num_items):
    """One item per expert, then again and again one more of the expert with the most weight per item."""
    items = list(range(len(weights)))
    copies = [1] * len(weights)
    while len(items) < num_items:
        ratio = [numpy.float32(w / numpy.float32(c)) for w, c in zip(weights, copies)]
        best = max(range(len(ratio)), key=lambda e: (ratio[e], -e))
        items.append(best)
        copies[best] += 1
    return items, copies


def plan(loads, slots, groups, nodes, ranks):
    if groups % nodes != 0:
        groups = nodes = 1
    size = len(loads) // groups
    sums = [numpy.float32(sum(int(x) for x in loads[g * size:(g + 1) * size])) for g in range(groups)]
    node_of = pack(sums, nodes)
    slot_expert = [None] * slots
    counts = [0] * len(loads)
    for node in range(nodes):
        mine = sorted((place, g) for g, (n, place) in enumerate(node_of) if n == node)
        experts = [g * size + i for _, g in mine for i in range(size)]
        weights = [loads[e] for e in experts]
        items, copies = replicate(weights, slots // nodes)
        per_item = [numpy.float32(weights[e] / numpy.float32(copies[e])) for e in items]
        per_rank = slots // ranks
        for item, (p, place) in zip(items, pack(per_item, ranks // nodes)):
            slot_expert[node * (slots // nodes) + p * per_rank + place] = experts[item]
        for e, expert in enumerate(experts):
            counts[expert] = copies[e]
    return slot_expert, counts


def main():
    root = pathlib.Path(__file__).resolve().parents[1]
    output = sys.argv[1] if len(sys.argv) > 1 else root / "testdata/eplb/deepseek_golden.json"
    random = numpy.random.default_rng(20)
    cases = []
    for slots, groups, nodes, ranks, experts in CASES:
        distinct = set()
        while len(distinct) < experts:
            distinct.add(int(random.lognormal(8, 1)) + 1)
        loads = numpy.array(random.permutation(sorted(distinct)), dtype=numpy.float32)
        slot_expert, counts = plan(loads, slots, groups, nodes, ranks)
        cases.append({"num_slots": slots, "num_groups": groups, "num_nodes": nodes, "num_ranks": ranks,
                      "loads": [int(x) for x in loads], "slot_expert": slot_expert, "replicas": counts})
    lines = ",\n".join(json.dumps(case) for case in cases)
    pathlib.Path(output).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
