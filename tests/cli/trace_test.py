#!/usr/bin/env python3
"""--trace: a document that Perfetto reads, with every rank and every kind of span, from threads and from processes.
Usage: trace_test.py [unittest options]; WIDELOAD_PROGRAM names the program, WIDELOAD_MPIRUN mpirun (none: threads only)."""
import collections
import json
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import PROGRAM, SOURCE, TIMEOUT_S, TINY, CliTest  # noqa: E402

MPIRUN = os.environ.get("WIDELOAD_MPIRUN", "")
ENVIRONMENT = {**os.environ, "TRTLLM_EPLB_SHM_NAME": f"trace_test_{os.getpid()}", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1"}
DEEPSEEK = SOURCE / "testdata/models/tiny-deepseek-v3"  # a dense layer, a shared expert
NUM_RANKS = 4
ENGINE_KINDS = {"schedule", "balance", "step", "collect"}
LAYER_KINDS = {"attention", "MoE layer", "router", "counts", "split", "dispatch", "receive", "experts", "return", "combine"}
RANK_KINDS = LAYER_KINDS | {"iteration", "embed", "dense MLP", "shared expert", "head", "sample", "announce placements",
                            "publish placements", "verify slots"}
WAITS = {"wait for counts", "wait for rows", "wait for results"}  # where one was not over at once
EPSILON_US = 0.002  # times are rounded to thousandths


class Trace(CliTest):
    def bench(self, *more):
        rows = self.rows("rows.jsonl", [{"task_id": i, "input_ids": [1 + (i * 37 + j * 11) % 300 for j in range(1 + i * 13 % 90)],
                                         "output_tokens": 1 + i % 5} for i in range(16)])
        return ["bench", "throughput", "-m", DEEPSEEK, "--dataset", rows, "--threads", "1", "--max-num-tokens", "64",
                "--moe-max-num-tokens", "64", "--slot-storage", "copy", "--rebalance", "random:1", "--verify-slots", *more]

    def traced(self, *more):
        return self.bench("--trace", self.folder / "trace.json", *more)

    def read(self):
        """(document, spans by (process, thread) names, sorted by begin)"""
        trace = json.loads((self.folder / "trace.json").read_text())
        names = {}
        for event in trace["traceEvents"]:
            if event["name"] in ("process_name", "thread_name"):
                tid = event["tid"] if event["name"] == "thread_name" else 0
                names[event["pid"], tid] = event["args"]["name"]
        tracks = collections.defaultdict(list)
        for event in trace["traceEvents"]:
            if event["ph"] == "X":
                tracks[names[event["pid"], 0], names[event["pid"], event["tid"]]].append(event)
        for spans in tracks.values():
            spans.sort(key=lambda span: (span["ts"], -span["dur"]))
        return trace, tracks

    def check_nesting(self, spans):
        """Of two spans of a track one contains the other, or they do not overlap."""
        open_ends = []
        for span in spans:
            end = span["ts"] + span["dur"]
            while open_ends and span["ts"] >= open_ends[-1] - EPSILON_US:
                open_ends.pop()
            self.assertTrue(not open_ends or end <= open_ends[-1] + EPSILON_US, span)
            open_ends.append(end)

    def check(self):
        trace, tracks = self.read()
        kinds = collections.defaultdict(set)
        for (process, thread), spans in tracks.items():
            self.check_nesting(spans)
            self.assertTrue(all(span["dur"] >= 0 and span["ts"] >= 0 for span in spans))
            kinds[process, thread] = {span["name"] for span in spans}
        self.assertGreaterEqual(kinds["engine", "engine"], ENGINE_KINDS)
        self.assertEqual(kinds["engine", "planner"], {"plan placements"})
        iterations = [span["args"]["iteration"] for span in tracks["engine", "engine"] if span["name"] == "step"]
        self.assertEqual(iterations, list(range(len(iterations))))
        for r in range(NUM_RANKS):
            of_rank = kinds[f"rank {r}", f"rank {r}"]
            self.assertGreaterEqual(of_rank, RANK_KINDS, r)
            self.assertLessEqual(of_rank - RANK_KINDS, WAITS | {"wait for copies"})
            self.assertEqual(kinds[f"rank {r}", "copy thread 0"], {"copy expert"})
            self.check_sums(tracks[f"rank {r}", f"rank {r}"], iterations)
        self.assertTrue(any(WAITS & of_track for of_track in kinds.values()))
        self.assertEqual(sum(spans["kept"] for spans in trace["otherData"]["spans"].values()),
                         sum(len(spans) for spans in tracks.values()))
        self.assertTrue(all(spans["dropped"] == 0 for spans in trace["otherData"]["spans"].values()))
        return tracks

    def check_sums(self, spans, iterations):
        """Each rank takes part in each iteration once; the parts of an iteration and of a layer are no longer than it, and
        there is one attention for each layer."""
        whole = {span["args"]["iteration"]: span["dur"] for span in spans if span["name"] == "iteration"}
        self.assertEqual(sorted(whole), iterations)
        num_layers = json.loads((DEEPSEEK / "config.json").read_text())["num_hidden_layers"]
        top = collections.Counter()
        attentions = collections.Counter()
        in_layer = collections.Counter()
        moe = collections.Counter()
        for span in spans:
            iteration = span["args"]["iteration"]
            layer = span["args"].get("layer", -1)
            if span["name"] in ("embed", "attention", "dense MLP", "MoE layer", "shared expert", "head", "sample"):
                top[iteration] += span["dur"]
            attentions[iteration] += span["name"] == "attention"
            if span["name"] in LAYER_KINDS - {"attention", "MoE layer"}:
                in_layer[iteration, layer] += span["dur"]
            if span["name"] == "MoE layer":
                moe[iteration, layer] += span["dur"]
        for iteration in iterations:
            self.assertEqual(attentions[iteration], num_layers)
            self.assertLessEqual(top[iteration], whole[iteration] + 0.1)
            self.assertGreater(top[iteration], 0)
        self.assertEqual(sorted(in_layer), sorted(moe))
        for place, total in in_layer.items():
            self.assertLessEqual(total, moe[place] + 0.1)

    def test_of_threads(self):
        done = self.good(*self.traced("--ep", NUM_RANKS))
        self.assertRegex(done.stderr, r"trace.json: trace of \d+ spans on 10 tracks")
        self.check()

    @unittest.skipUnless(MPIRUN, "no mpirun")
    def test_of_processes_is_gathered_by_rank_0(self):
        command = [MPIRUN, "-n", str(NUM_RANKS), str(PROGRAM), *map(str, self.traced())]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        tracks = self.check()
        # One clock: what a rank does in an iteration lies within the engine's step of it.
        steps = {span["args"]["iteration"]: span for span in tracks["engine", "engine"] if span["name"] == "step"}
        for r in range(1, NUM_RANKS):
            for span in tracks[f"rank {r}", f"rank {r}"]:
                if span["name"] == "iteration":
                    step = steps[span["args"]["iteration"]]
                    self.assertGreater(span["ts"], step["ts"] - 1000)
                    self.assertLess(span["ts"] + span["dur"], step["ts"] + step["dur"] + 1000)

    def test_of_one_rank(self):
        self.good("generate", "-m", SOURCE / "models/wideload-14m", "-p", "a", "-n", "2", "--trace", self.folder / "trace.json")
        _, tracks = self.read()
        self.assertEqual(set(tracks), {("engine", "engine"), ("rank 0", "rank 0")})

    def test_results_do_not_change(self):
        outputs = [self.folder / "with", self.folder / "without"]
        self.good(*self.traced("--ep", "2", "--output", outputs[0]))
        self.good(*self.bench("--ep", "2", "--output", outputs[1]))
        self.assertEqual(outputs[0].read_bytes(), outputs[1].read_bytes())

    def test_places_that_cannot_be_written_are_refused_before_the_run(self):
        generate = ["generate", "-p", "a", "-n", "1", "--trace"]
        self.refused([*generate, self.folder / "none" / "x"], "none/x")
        self.refused([*generate, "-"], "--trace is -")
        self.refused([*generate, TINY / "config.json", "-m", TINY], "--trace", "config.json")


if __name__ == "__main__":
    unittest.main()
