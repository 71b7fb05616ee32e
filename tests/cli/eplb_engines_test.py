"""`wideload eplb` as users of other engines call it: their files, their rules, and the commands of their pages."""
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from engine_files import Tensor, flat, npy, safetensors, torch_file, vllm_stats  # noqa: E402

ROOT = pathlib.Path(os.environ["WIDELOAD_SOURCE_DIR"])
SMALL = ROOT / "testdata/statistics/small"
EXPERTS, LAYERS, STEPS, RANKS = 32, 3, 6, 4
# 3 x 64 x 32 weights an expert, one dense layer in front and a prediction layer behind
CONFIG = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 64,
          "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
          "num_key_value_heads": 4, "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 4,
          "first_k_dense_replace": 0, "num_nextn_predict_layers": 1, "vocab_size": 100, "max_position_embeddings": 512,
          "rms_norm_eps": 1e-6, "rope_theta": 10000, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
          "qk_nope_head_dim": 8, "v_head_dim": 8, "hidden_act": "silu", "torch_dtype": "bfloat16", "n_group": 4,
          "topk_group": 2, "tie_word_embeddings": False}
WEIGHTS = 3 * 64 * 32


def counts(seed, columns=EXPERTS, layers=LAYERS, steps=STEPS):
    """Skewed counts [steps][layers][columns]; the same experts are hot in every step."""
    draw = random.Random(seed)
    heat = [[draw.paretovariate(1.2) for _ in range(columns)] for _ in range(layers)]
    return [[[int(40 * h * draw.uniform(0.8, 1.2)) for h in row] for row in heat] for _ in range(steps)]


def imbalance(rows, ranks):
    """Mean of (max - mean) / mean over rows [..][columns] of contiguous ranks."""
    ratios = []
    for row in rows:
        size = len(row) // ranks
        loads = [sum(row[r * size:(r + 1) * size]) for r in range(ranks)]
        ratios.append(max(loads) * ranks / sum(loads) - 1)
    return sum(ratios) / len(ratios)


class Engines(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def run_eplb(self, *arguments, code=0):
        run = subprocess.run([os.environ["WIDELOAD_PROGRAM"], "eplb", *map(str, arguments)], capture_output=True, text=True,
                             cwd=self.out)
        self.assertEqual(run.returncode, code, run.stderr)
        return run

    def report(self, *arguments):
        return json.loads(self.run_eplb("report", *arguments, "--json").stdout)

    def write(self, name, content):
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(
            content if isinstance(content, str) else json.dumps(content))
        return path

    def statistics(self, name, per_rank, num_experts, meta={}):
        """per_rank: of each rank {(iteration, layer): counts}."""
        for rank, tensors in enumerate(per_rank):
            self.write(f"{name}/rank{rank}.safetensors",
                       safetensors({f"{i}_{l}": ([num_experts], row) for (i, l), row in tensors.items()}))
        self.write(f"{name}/meta_info.json", {"num_experts": num_experts, "num_experts_per_token": 4, **meta})
        return self.out / name

    def model(self, **changes):
        return self.write("model/config.json", {**CONFIG, **changes}).parent

    # What was measured ------------------------------------------------------------------------

    def test_reports_the_layout_that_ran(self):
        steps = counts(1, columns=40)
        folder = self.statistics("slots", [{(i, l): step[l] for i, step in enumerate(steps) for l in range(LAYERS)}]
                                 + [{(i, l): [0] * 40 for i in range(STEPS) for l in range(LAYERS)}] * 3, 40)
        layout = self.write("slots.yaml", "num_slots: 40\ninitial_global_assignments:\n" + "".join(
            f"  {l}: {[s % EXPERTS for s in range(40)]}\n" for l in range(LAYERS)))
        measured = imbalance([row for step in steps for row in step], RANKS)
        for more in ([], ["--eplb_config", layout]):
            report = self.report("--expert_statistic_path", folder, *more)
            self.assertAlmostEqual(report["average"]["imbalance_ratio"], measured, 5)
        self.assertIn("the 40 slots that ran", report["layout"])
        diagnosis = json.loads(self.run_eplb("diagnose", "--expert_statistic_path", folder, "--eplb_config", layout,
                                             "--json").stdout)
        self.assertAlmostEqual(diagnosis["imbalance_recorded"], measured, 5)
        self.assertAlmostEqual(diagnosis["imbalance_now"], imbalance([row for s in steps[3:] for row in s], RANKS), 9)
        self.assertIn("the 40 slots that ran", diagnosis["text"])

    def test_tells_ranks_and_where_they_are_from(self):
        plan = self.write("plan.yaml", "num_slots: 40\n")
        run = self.run_eplb("report", "--expert_statistic_path", SMALL, "--projection_eplb_config_path", plan)
        self.assertRegex(run.stderr, r"4 ranks: the rank files of .*does not tell its ranks.*fit 2, 5, 8.*--ep_size")
        told = self.write("told.yaml", "num_slots: 40\n# ep_size: 8\n")
        self.assertEqual(self.report("--expert_statistic_path", SMALL, "--projection_eplb_config_path", told)["ep_size"], 8)
        layout, new = self.out / "layout.yaml", self.out / "new.yaml"
        self.run_eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--output_path", layout)
        run = self.run_eplb("repair", "--from", layout, "--expert_statistic_path", SMALL, "--output_path", new)
        self.assertIn("4 ranks: the rank files of", run.stderr)
        self.assertNotIn("ep_size", new.read_text())
        self.run_eplb("repair", "--from", layout, "--expert_statistic_path", SMALL, "--ep_size", 4, "--output_path", new)
        self.assertIn("# ep_size: 4", new.read_text())

    def test_asks_for_ranks_that_nobody_tells_or_that_are_missing(self):
        rows = {(0, l): row for l, row in enumerate(counts(2, steps=1)[0])}
        one = self.statistics("one", [rows], EXPERTS)
        for command in (["report"], ["diagnose"], ["plan", "--output_path", "p.yaml"]):
            self.assertRegex(self.run_eplb(*command, "--expert_statistic_path", one, code=2).stderr, "--ep_size.*one rank")
        self.report("--expert_statistic_path", one, "--ep_size", 4)
        three = self.statistics("three", [rows] * 3, EXPERTS)
        self.assertIn("rank3.safetensors", self.run_eplb("report", "--expert_statistic_path", three, code=2).stderr)
        plan = ["plan", "--expert_statistic_path", one, "--ep_size", 5, "--output_path", "p.yaml"]
        self.assertIn("35 at the least", self.run_eplb(*plan, code=2).stderr)
        told = self.statistics("told", [rows] * 2, EXPERTS, {"ep_size": 4})
        self.assertIn("rank2.safetensors to rank3", self.run_eplb("report", "--expert_statistic_path", told, code=2).stderr)

    def test_refuses_to_report_nothing(self):
        empty = [{(i, l): [0] * EXPERTS for i in range(STEPS) for l in range(LAYERS)}] * RANKS
        folder = self.statistics("none", empty, EXPERTS)
        for more in ([], ["--json"], ["--html", "page.html"]):
            run = self.run_eplb("report", "--expert_statistic_path", folder, *more, code=2)
            self.assertEqual(run.stdout, "")
            self.assertIn("no layer has any load in these iterations", run.stderr)
        self.assertFalse((self.out / "page.html").exists())

    def test_plan_tells_what_the_policy_even_would_gain(self):
        plan = ["plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--ep_size", 8, "--output_path"]
        line = r"--policy even would leave an imbalance ratio of (0\.\d+) where this policy leaves (0\.\d+)"
        run = self.run_eplb(*plan, "told.yaml")
        even, greedy = map(float, re.search(line, run.stderr).groups())
        self.assertLess(even, 0.95 * greedy)
        self.assertNotRegex(run.stdout, "--policy even")
        self.run_eplb(*plan, "chosen.yaml", "--policy", "tensorrt_llm")
        self.assertEqual((self.out / "told.yaml").read_bytes(), (self.out / "chosen.yaml").read_bytes())
        for more in (["--policy", "tensorrt_llm"], ["--policy", "even"], ["--engine", "wideload"], ["--iter_stop", 103]):
            self.assertNotRegex(self.run_eplb(*plan, "quiet.yaml", *more).stderr, line)
        self.run_eplb("convert", SMALL, "table.csv")
        run = self.run_eplb("plan", "--loads", "table.csv", "--num_slots", 40, "--ep_size", 8, "--output_path", "quiet.yaml")
        self.assertNotRegex(run.stderr, line)
        self.assertIn("what --policy even would gain on iterations that it has not seen takes 4 recorded", run.stderr)

    def test_plan_judges_on_iterations_that_it_has_not_seen(self):
        plan = ["plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--output_path"]
        for policy in ("even", "tensorrt_llm"):
            run = self.run_eplb(*plan, "p.yaml", "--policy", policy, "--json")
            found = json.loads(run.stdout)["held_out"]
            self.assertIn(f"--policy {policy} leaves an imbalance ratio of {found['imbalance_planned']:.3f} on the second", run.stderr)
            self.run_eplb(*plan, "half.yaml", "--policy", policy, "--iter_stop", 103)
            seen = ["--expert_statistic_path", SMALL, "--iter_start", 103]
            after = self.report(*seen, "--projection_eplb_config_path", "half.yaml", "--ep_size", 4)["average"]
            self.assertAlmostEqual(found["imbalance_planned"], after["imbalance_ratio"], 5)
        run = self.run_eplb(*plan, "p.yaml", "--iter_stop", 103, "--json")
        self.assertIsNone(json.loads(run.stdout)["held_out"])
        self.assertIn("figures are of the iterations that the plan was made from", run.stderr)

    def test_diagnose_answers_for_the_slots_that_ran(self):
        layout = self.out / "layout.yaml"
        self.run_eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--output_path", layout)
        slots = self.statistics("slots40", [{(i, l): [1 + (s + i) % 3 for s in range(40)] for i in range(4) for l in (3, 4, 7)}] * RANKS, 40)
        run = self.run_eplb("diagnose", "--expert_statistic_path", slots, "--eplb_config", layout, "--json")
        self.assertEqual(json.loads(run.stdout)["asked"]["num_slots"], 40)
        self.assertIn("answering for the 40 slots that ran", run.stderr)
        other = self.run_eplb("diagnose", "--expert_statistic_path", slots, "--eplb_config", layout, "--num_slots", 44, "--json")
        self.assertEqual(json.loads(other.stdout)["asked"]["num_slots"], 44)

    def test_repair_is_for_the_engine_named(self):
        self.run_eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--iter_stop", 103, "--output_path", "old.yaml")
        repair = ["repair", "--from", "old.yaml", "--expert_statistic_path", SMALL, "--iter_start", 103, "--output_path", "new.yaml", "--json"]
        for engine, split in [("tensorrt_llm", "even"), ("vllm", "round_robin"), ("sglang:dynamic", "random"), ("wideload", "optimal")]:
            run = self.run_eplb(*repair, "--engine", engine)
            self.assertEqual(json.loads(run.stdout)["split"], split)
            self.assertIn(f"{split} split", run.stderr)
        even = json.loads(self.run_eplb(*repair, "--split", "even").stdout)
        named = json.loads(self.run_eplb(*repair, "--engine", "tensorrt_llm").stdout)
        self.assertEqual(even["imbalance_after"], named["imbalance_after"])
        run = self.run_eplb(*repair)
        self.assertEqual(json.loads(run.stdout)["split"], "optimal")
        self.assertIn("--engine tensorrt_llm", run.stderr)
        self.run_eplb(*repair, "--engine", "sglang:fast", code=2)

    def test_an_online_balancer_repairs_for_the_split_of_the_engine(self):
        simulate = ["simulate", "--expert_statistic_path", SMALL, "--ep_size", 4, "--num_slots", 40, "--rebalance", "repair", "--json"]
        result = {}
        for engine, split in (("tensorrt_llm", "even"), ("wideload", "optimal")):
            (found,) = json.loads(self.run_eplb(*simulate, "--engine", engine).stdout)["results"]
            self.assertEqual(found["split"], split)
            result[split] = found
        # An even split is still far from balanced where the optimal one has nothing left to repair.
        self.assertGreater(result["even"]["slots_fetched_per_layer"], result["optimal"]["slots_fetched_per_layer"])

    def test_tells_of_ranks_that_may_be_missing(self):
        rows = {(i, l): [1 + e for e in range(EXPERTS)] for i in range(4) for l in range(2)}
        three = self.statistics("three_of_four", [rows] * 3, EXPERTS)
        run = self.run_eplb("plan", "--expert_statistic_path", three, "--ep_size", 4, "--output_path", "p.yaml")
        self.assertIn("3 ranks recorded, which do not divide", run.stderr)
        self.assertIn("rank3.safetensors", run.stderr)

    def test_diagnose_offers_the_policy_even_to_engines_that_split_evenly(self):
        diagnose = ["diagnose", "--expert_statistic_path", SMALL, "--num_slots", 40, "--ep_size", 8, "--json"]
        found = json.loads(self.run_eplb(*diagnose).stdout)
        self.assertLess(found["asked"]["imbalance_policy_even"], found["asked"]["imbalance_even"])
        text = found["text"].splitlines()[0]
        self.assertRegex(text, r"as wideload eplb plan --policy even places experts, \d+\.\d % as the default policy")
        self.assertIn(f"{100 * found['asked']['imbalance_policy_even']:.1f} % with an even split", text)
        self.assertNotIn("--policy even", json.loads(self.run_eplb(*diagnose, "--engine", "wideload").stdout)["text"])

    def test_leaves_empty_iterations_and_layers_out_and_says_so(self):
        steps = counts(3)
        steps[2] = [[0] * EXPERTS] * LAYERS
        for step in steps:
            step[1] = [0] * EXPERTS
        folder = self.statistics("empty", [{(i, l): step[l] for i, step in enumerate(steps) for l in range(LAYERS)}], EXPERTS)
        report = self.report("--expert_statistic_path", folder, "--ep_size", RANKS)
        self.assertEqual((report["layers_without_load"], report["empty_iterations"]), ([1], 1))
        loaded = [step[l] for i, step in enumerate(steps) for l in (0, 2) if i != 2]
        self.assertAlmostEqual(report["average"]["imbalance_ratio"], imbalance(loaded, RANKS), 5)
        run = self.run_eplb("report", "--expert_statistic_path", folder, "--ep_size", RANKS, "--html", "page.html")
        self.assertNotIn("NaN", run.stdout)
        self.assertRegex(run.stderr, "layers without any load are left out: 1")
        self.assertRegex((self.out / "page.html").read_text(), "layer 1: no load")

    def test_reads_pipeline_stages_and_asks_completeness_of_the_window_alone(self):
        steps = counts(4)
        stage = [{(i, l): step[l] for i, step in enumerate(steps) for l in layers} for layers in ((0, 1), (0, 1), (2,), (2,))]
        del stage[3][(5, 2)]
        folder = self.statistics("pp", stage, EXPERTS)
        self.assertIn("iteration 5 is missing", self.run_eplb("report", "--expert_statistic_path", folder, code=2).stderr)
        report = self.report("--expert_statistic_path", folder, "--iter_stop", 5)
        self.assertEqual(([row["layer"] for row in report["layers"]], report["ep_size"]), ([0, 1, 2], 4))
        self.assertAlmostEqual(report["layers"][2]["mean"], sum(sum(s[2]) for s in steps[:5]) * 2 / 5 / 4, 1)

    # Files of engines -------------------------------------------------------------------------

    def test_reads_what_every_engine_records(self):
        steps = counts(5)
        total = imbalance([row for step in steps for row in step], RANKS)
        placement = [list(range(EXPERTS))] * LAYERS
        records = [{"forward_pass_id": i, "rank": r, "gatherer_key": "primary",
                    "global_physical_count": [[c // 2 + (c % 2) * r for c in row] for row in step]}
                   for i, step in enumerate(steps) for r in range(2)]
        tensors = [{**record, "global_physical_count": Tensor(record["global_physical_count"])} for record in records]
        ids = [{"forward_pass_id": i, "rank": 0, "forward_mode": 1 + i % 2,
                "topk_ids_of_layer": [[[e, -1] for e, c in enumerate(row) for _ in range(c)]
                                      + [[-1, -1]] * (max(map(sum, step)) - sum(row)) for row in step]}
               for i, step in enumerate(steps)]
        self.write("window.safetensors", safetensors({"expert_load_window": ([STEPS, LAYERS, EXPERTS], flat(steps))}))
        names = [
            self.write("stat.pt", torch_file({"rank": 0, "logical_count": Tensor(steps),
                                              "average_utilization_rate_over_window": None})),
            self.write("stat.json", {"logical_count": steps}),
            self.write("pass.json", {"records": records, "last_physical_to_logical_map": placement}),
            self.write("pass.pt", torch_file({"records": tensors, "last_physical_to_logical_map": Tensor(placement)})),
            self.write("token.json", {"records": ids, "last_physical_to_logical_map": placement}),
            self.write("stats.jsonl", vllm_stats(steps, placement, RANKS)),
            self.write("window.npy", npy(flat(steps), (STEPS, LAYERS, EXPERTS))), "window.safetensors",
            self.write("long.csv", "step,layer_id,expert_id,count\n" + "".join(
                f"{i},{l},{e},{c}\n" for i, step in enumerate(steps) for l, row in enumerate(step)
                for e, c in enumerate(row)))]
        for name in names:
            with self.subTest(str(name)):
                report = self.report("--loads", name, "--ep_size", RANKS)
                self.assertAlmostEqual(report["average"]["imbalance_ratio"], total, 5)
                self.assertLess(report["percentiles"]["p50"], report["percentiles"]["max"])
                self.assertGreater(report["average"]["balancedness"], 1 / (1 + total) - 1e-9)
                self.run_eplb("plan", "--loads", name, "--ep_size", RANKS, "--num_slots", 40, "--output_path", "p.yaml")
        self.run_eplb("report", "--loads", "pass.pt", "--ep_size", RANKS, "--html", "page.html")
        page = (self.out / "page.html").read_text()
        self.assertIn("Recorded: the 32 slots of the run on 4 ranks", page)
        self.assertEqual(page.count(" x mean</title>"), LAYERS * RANKS)
        self.write("five.yaml", "num_slots: 35\n")
        self.run_eplb("report", "--loads", "stat.pt", "--ep_size", 5, "--projection_eplb_config_path", "five.yaml", "--html",
                      "page.html")
        self.assertIn("Before: experts in order on 4 ranks", (self.out / "page.html").read_text())
        self.assertIn("several phases, taken together: 3 prefill, 3 decode", self.run_eplb(
            "report", "--loads", "token.json", "--ep_size", RANKS).stderr)
        phase = self.report("--loads", "token.json", "--ep_size", RANKS, "--phase", "decode")
        self.assertAlmostEqual(phase["average"]["imbalance_ratio"],
                               imbalance([row for step in steps[1::2] for row in step], RANKS), 5)
        slots = self.write("moe_load_7.npy", npy(flat(steps[0]), (LAYERS, RANKS, EXPERTS // RANKS)))
        report = self.report("--loads", slots)
        self.assertEqual(report["ep_size"], RANKS)
        self.assertAlmostEqual(report["average"]["imbalance_ratio"], imbalance(steps[0], RANKS), 5)
        ranks = self.out / "ranks"  # a file of each rank
        for rank in range(2):
            self.write(f"ranks/dump_{rank}.pt", torch_file({
                "records": [t for t in tensors if t["rank"] == rank], "last_physical_to_logical_map": Tensor(placement)}))
        self.assertAlmostEqual(self.report("--loads", ranks, "--ep_size", RANKS)["average"]["imbalance_ratio"], total, 5)

    def test_tells_what_leaves_ranks_and_nodes(self):
        # four tokens of two experts each; a rank per expert, so half of the copies leave their rank
        self.write("routing.safetensors", safetensors({"expert_ids": ((4, 1, 2), [0, 1, 0, 1, 2, 3, 2, 3]),
                                                       "answer_tokens": ((1,), [4])}))
        routing = ["--routing", "routing.safetensors", "--ep_size", 4, "--tokens_per_iteration", 4]
        crossing = self.report(*routing, "--nodes", 2)["crossing"][0]
        self.assertEqual((crossing["ranks_per_token"], crossing["rows_off_rank"], crossing["rows_off_node"]), (2, 0.5, 0))
        self.assertEqual(crossing["chosen_together"][0]["experts"], [0, 1])
        layout = self.write("swap.yaml", "num_slots: 4\ninitial_global_assignments:\n  0: [2, 3, 0, 1]\n")
        swapped = self.report(*routing, "--nodes", 2, "--projection_eplb_config_path", layout)["crossing"][0]
        self.assertEqual(swapped["rows_off_node"], 1)
        self.assertIn("off rank 0.500", self.run_eplb("report", *routing).stdout)
        self.run_eplb("report", *routing, "--nodes", 3, code=2)

    def test_executes_nothing_of_a_dump(self):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(evil),)
        evil = self.out / "executed"
        run = self.run_eplb("report", "--loads", self.write("evil.pt", torch_file({"logical_count": Evil()})), "--ep_size", 4,
                            code=2)
        self.assertRegex(run.stderr, r"names (posix|os)\.mkdir, which is not allowed")
        self.assertFalse(evil.exists())

    def test_writes_placements_as_each_engine_loads_them(self):
        loads = self.write("stats.jsonl", vllm_stats(counts(6), [list(range(EXPERTS))] * LAYERS, RANKS))
        self.run_eplb("plan", "--loads", loads, "--num_slots", 40, "--ep_size", RANKS, "--policy", "deepseek",
                      "--output_path", "p.yaml")
        self.run_eplb("convert", "p.yaml", "m.jsonl")
        mapping = json.loads((self.out / "m.jsonl").read_text())
        self.assertEqual((mapping["record_type"], mapping["num_slots"], mapping["num_redundant_experts"]),
                         ("eplb_initial_mapping", 40, 8))
        self.run_eplb("convert", "p.yaml", "map.json", "--engine", "vllm_ascend")
        devices = json.loads((self.out / "map.json").read_text())["layer_list"][1]["device_list"]
        self.assertEqual(flat([d["device_expert"] for d in devices]), mapping["initial_global_assignments"]["1"])
        self.run_eplb("convert", "p.yaml", "s.json")
        sglang = json.loads((self.out / "s.json").read_text())["physical_to_logical_map"]
        self.assertEqual(sglang[1], mapping["initial_global_assignments"]["1"])
        for name in ("m.jsonl", "map.json", "s.json"):
            self.run_eplb("convert", name, "back.yaml")
            self.assertEqual(re.findall(r"\[.*\]", (self.out / "back.yaml").read_text()),
                             re.findall(r"\[.*\]", (self.out / "p.yaml").read_text()))

    def test_keeps_steps_and_says_when_they_are_summed(self):
        loads = self.write("mini.json", {"logical_count": [[[1, 2, 3, 4], [4, 3, 2, 1]], [[2, 2, 2, 2], [1, 1, 1, 5]]]})
        self.run_eplb("convert", loads, "folder")
        self.assertEqual(self.report("--expert_statistic_path", "folder", "--ep_size", 2)["iter_stop"], 2)
        self.assertIn("2 steps are summed", self.run_eplb("convert", loads, "sum.csv").stderr)
        self.run_eplb("convert", loads, "kept.json", "--keep_steps")
        self.assertEqual(json.loads((self.out / "kept.json").read_text()), json.loads(loads.read_text()))
        self.run_eplb("convert", loads, "kept.jsonl")
        self.assertTrue((self.out / "kept.jsonl").is_file())
        self.write("table.csv", "1,2,3,4\n4,3,2,1\n")
        self.assertIn("becomes iteration 0", self.run_eplb("convert", "table.csv", "one").stderr)
        self.assertEqual(self.report("--expert_statistic_path", "one", "--ep_size", 2)["iter_stop"], 1)
        self.assertIn("holds no placement; wideload eplb plan", self.run_eplb("convert", "table.csv", "p.yaml", code=2).stderr)
        self.assertIn("nowhere.json: no such file", self.run_eplb("convert", "nowhere.json", "x", code=2).stderr)

    # Verdicts ---------------------------------------------------------------------------------

    def test_a_verdict_is_for_the_split_of_the_engine_without_drawn_noise(self):
        equal = self.write("equal.json", {"logical_count": [[1000] * 16]})
        verdict = ["diagnose", "--loads", equal, "--ep_size", 4, "--top_k", 2, "--json"]
        for engine in ([], ["--engine", "vllm"], ["--split", "optimal"]):
            found = json.loads(self.run_eplb(*verdict, *engine).stdout)
            self.assertEqual((found["worth"], found["imbalance_now"]), ("no", 0))
        self.assertIn("not worth it here", found["text"])

    def test_answers_for_the_slots_asked_and_then_offers_more_with_their_cost(self):
        loads = self.write("loads.json", {"logical_count": counts(7, columns=60, steps=12)})
        model = self.model(n_routed_experts=60, n_group=1, topk_group=1)
        found = json.loads(self.run_eplb("diagnose", "--loads", loads, "--ep_size", 12, "--num_slots", 72, "--model", model,
                                         "--json").stdout)
        answer, limit, more = found["text"].splitlines()[:3]
        self.assertIn("72 slots on 12 ranks", answer)
        self.assertRegex(answer, r"6 slots a rank, 20\.0 % more expert weights.* of weights a rank, .* KV cache of \d+ tokens")
        self.assertIn("With 72 slots on 12 ranks", limit)
        self.assertRegex(more, r"60 experts on 12 ranks allow 60, 72, 84")
        self.assertRegex(more, r"on \d+ ranks with \d+ \([\d.]+ .iB of weights a rank\)")
        for part, whole in re.findall(r"about ([\d.]+) % of ([\d.]+) %", limit):
            self.assertLessEqual(float(part), float(whole))

    def test_a_policy_that_forgets_nodes_says_so(self):
        loads = self.write("stat.json", {"logical_count": counts(8)})
        plan = ["plan", "--loads", loads, "--ep_size", 4, "--policy", "deepseek", "--output_path", "p.yaml", "--nodes", 2]
        self.assertIn("plans as on one node", self.run_eplb(*plan).stderr)
        self.assertIn("plans as on one node", self.run_eplb(*plan, "--num_groups", 5, "--num_slots", 40).stderr)
        self.assertNotIn("as on one node", self.run_eplb(*plan, "--num_groups", 4).stderr)

    # check ------------------------------------------------------------------------------------

    def yaml(self, layers, more=""):
        return self.write("plan.yaml", "initial_global_assignments:\n" + "".join(
            f"  {l}: {[s % EXPERTS for s in range(40)]}\n" for l in layers) + f"num_slots: 40\n{more}")

    def test_check_reckons_experts_as_stored(self):
        plan = self.yaml(range(4))
        groups = {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}}}
        for quantization, bits in (
                (None, 16), ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, 4.5),
                ({"quant_method": "fp8"}, 8), ({"quant_method": "mxfp4"}, 4.25),
                ({"quant_method": "compressed-tensors", "config_groups": groups}, 4.5),
                ({"quant_method": "something"}, None)):
            model = self.model(**({"quantization_config": quantization} if quantization else {}))
            run = self.run_eplb("check", plan, "--model", model, "--ep_size", 4, "--json")
            self.assertEqual(json.loads(run.stdout)["expert_bytes"], bits and WEIGHTS * bits / 8, quantization)
        self.assertIn("unknown bytes an expert", self.run_eplb("check", plan, "--model", model, "--ep_size", 4).stdout)

    def test_check_holds_a_file_to_the_rules_of_the_engine(self):
        model = self.model()
        check = ["check", "plan.yaml", "--model", model, "--ep_size", 4]
        self.yaml(range(4), "ep_size: 4\n")
        run = self.run_eplb(*check, code=2)
        self.assertIn("TensorRT-LLM refuses it: holds the key ep_size", run.stderr)
        self.assertNotIn("loads in", run.stdout)
        self.run_eplb(*check, "--engine", "wideload")
        self.yaml(range(3))
        self.assertIn("layer 3 is missing: it is a prediction (MTP) layer", self.run_eplb(*check).stdout)
        self.assertIn("KeyError: 3", self.run_eplb(*check, "--engine", "tensorrt_llm", code=2).stderr)
        self.run_eplb(*check, "--engine", "tensorrt_llm", "--mtp_layers", 0)
        self.assertNotIn("MTP", self.run_eplb(*check, "--engine", "wideload").stdout)  # leaves these layers out
        self.write("bad.yaml", (self.out / "plan.yaml").read_text().replace("  1: [0, 1, 2", "  1: [0, 1, 32"))
        self.assertRegex(self.run_eplb("check", "bad.yaml", "--model", model, code=2).stderr, "no slot for expert 2|expert 32")
        self.write("wide.yaml", (self.out / "plan.yaml").read_text().replace("31, 0, 1", "31, 32, 1"))
        self.assertRegex(self.run_eplb("check", "wide.yaml", "--model", model, code=2).stderr,
                         r"layer 0, slot 32 holds expert 32")
        self.run_eplb("convert", "plan.yaml", "s.json")
        self.run_eplb("check", "s.json", "--model", model, "--ep_size", 4, "--engine", "sglang")
        self.assertIn("vLLM loads mapping .jsonl",
                      self.run_eplb("check", "s.json", "--model", model, "--engine", "vllm", code=2).stderr)

    def test_a_file_without_layers_is_contiguous_everywhere(self):
        plan = self.write("contiguous.yaml", "num_slots: 40\n")
        self.run_eplb("check", plan, "--model", self.model(), "--ep_size", 4)
        projected = self.report("--expert_statistic_path", SMALL, "--projection_eplb_config_path", plan, "--ep_size", 4)
        layout = self.write("listed.yaml", "num_slots: 40\ninitial_global_assignments:\n" + "".join(
            f"  {l}: {[(r * 8 + j) % 32 for r in range(4) for j in range(10)]}\n" for l in (3, 4, 7)))
        listed = self.report("--expert_statistic_path", SMALL, "--projection_eplb_config_path", layout, "--ep_size", 4)
        self.assertEqual(projected["average"], listed["average"])
        self.assertIn("--layers, --num_experts and --ep_size say", self.run_eplb("convert", plan, "m.jsonl", code=2).stderr)
        sizes = ["--layers", "3,4,7", "--num_experts", EXPERTS, "--ep_size", RANKS]
        for name in ("m.jsonl", "s.json", "back.yaml"):
            self.run_eplb("convert", plan, name, *sizes)
            self.assertEqual(self.report("--expert_statistic_path", SMALL, "--projection_eplb_config_path", name, "--ep_size", 4)[
                "average"], listed["average"])
        self.assertIn("placement without layers", self.run_eplb("convert", layout, "m.jsonl", *sizes, code=2).stderr)

    # The pages --------------------------------------------------------------------------------

    def run_page(self, name):
        """Every command of the page's shell blocks, in order."""
        text = (ROOT / f"docs/howto/{name}.md").read_text()
        commands = [line.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()
                    if line.strip()]
        self.assertGreaterEqual(len(commands), 7)
        for command in commands:
            with self.subTest(command):
                program, *arguments = shlex.split(command)
                self.assertEqual((program, arguments[0]), ("wideload", "eplb"))
                self.run_eplb(*arguments[1:])

    def test_the_page_of_tensorrt_llm(self):
        shutil.copytree(SMALL, self.out / "stats")
        self.model(num_hidden_layers=8, moe_layers=[3, 4, 7])
        slots = counts(9, columns=40)
        self.statistics("stats2", [{(i, l): step[k] for i, step in enumerate(slots) for k, l in enumerate((3, 4, 7))}] * 4, 40)
        self.run_page("balance-tensorrt-llm")

    def test_the_page_of_vllm(self):
        steps = counts(10)
        self.write("stats.jsonl", vllm_stats(steps, [list(range(EXPERTS))] * LAYERS, RANKS))
        self.write("window.npy", npy(flat(steps), (STEPS, LAYERS, EXPERTS)))
        self.write("moe_load_100.npy", npy(flat(steps[0]), (LAYERS, RANKS, EXPERTS // RANKS)))
        self.model()
        self.run_page("balance-vllm")

    def test_the_page_of_sglang(self):
        steps = counts(11)
        self.write("dump.pt", torch_file({"rank": 0, "logical_count": Tensor(steps)}))
        self.write("tokens.json", {"records": [
            {"forward_pass_id": i, "rank": 0, "forward_mode": 2,
             "topk_ids_of_layer": [[[e] for e in range(EXPERTS)] + [[row.index(max(row))]] for row in step]}
            for i, step in enumerate(steps)]})
        self.model()
        self.run_page("balance-sglang")


if __name__ == "__main__":
    unittest.main()
