"""`wideload eplb`: report, plan, convert and check as a user calls them."""
import itertools
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import write_safetensors  # noqa: E402

ROOT = pathlib.Path(os.environ["WIDELOAD_SOURCE_DIR"])
SHARED = pathlib.Path(os.environ.get("WIDELOAD_SHARED", ROOT / "../shared"))
SMALL = ROOT / "testdata/statistics/small"
R1 = SHARED / "data/trtllm-statistics/r1-shape"
MODEL = ROOT / "models/wideload-14m"


class EplbCommands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def eplb(self, *arguments, code=0):
        run = subprocess.run([os.environ["WIDELOAD_PROGRAM"], "eplb", *map(str, arguments)], capture_output=True, text=True)
        self.assertEqual(run.returncode, code, run.stderr)
        return run.stdout if code == 0 else run.stderr

    def check_folder(self, folder, window, ep_size, num_slots):
        statistics = ["--expert_statistic_path", folder]
        plan = folder / f"expected_eplb_{ep_size}x{num_slots}.yaml"
        projection = ["--projection-eplb-config-path", plan, "--ep-size", ep_size]
        for arguments, expected in (([], ""), (["--per_expert"], "_per_expert"),
                                    (["--iter_start", window[0], "--iter-stop", window[1]], "_window"),
                                    (projection, f"_projection_{ep_size}x{num_slots}")):
            self.assertEqual(self.eplb("report", *statistics, *arguments),
                             (folder / f"expected_report{expected}.txt").read_text())
        own = self.out / "plan.yaml"
        self.eplb("plan", *statistics, "--ep_size", ep_size, "--num_slots", num_slots, "--output_path", own)
        self.assertEqual(own.read_text(), plan.read_text())

    def test_prints_the_reports_and_plans_of_tensorrt_llm(self):
        self.check_folder(SMALL, (101, 105), 4, 40)

    def test_prints_the_reports_and_plans_of_tensorrt_llm_for_an_r1_shape(self):
        if not R1.is_dir():
            self.skipTest(f"{R1} is not there; set WIDELOAD_SHARED")
        self.check_folder(R1, (101, 102), 36, 288)

    def test_prints_one_json_document(self):
        report = json.loads(self.eplb("report", "--expert_statistic_path", SMALL, "--json"))
        self.assertEqual([row["layer"] for row in report["layers"]], [3, 4, 7])
        self.assertAlmostEqual(report["average"]["imbalance_ratio"], 0.3203125, 6)
        plan = json.loads(self.eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 40, "--policy", "deepseek",
                                    "--output_path", self.out / "p.yaml", "--json"))
        self.assertLess(plan["imbalance_planned"], plan["imbalance_now"])
        for row in [plan, *plan["layers"]]:
            self.assertLessEqual(row["imbalance_planned_optimal"], row["imbalance_planned"])
            self.assertLessEqual(row["bound_replica_capacity"], row["imbalance_planned_optimal"] + 1e-9)
            self.assertGreaterEqual(row["num_components"], 1)

    def test_plans_tell_both_splits_bounds_and_components(self):
        loads = self.out / "loads.csv"
        loads.write_text("120,20,100\n")
        plan = json.loads(self.eplb("plan", "--loads", loads, "--ep_size", 2, "--num_slots", 4, "--policy",
                                    "scenario", "--output_path", self.out / "p.yaml", "--json"))
        self.assertAlmostEqual(plan["imbalance_planned_optimal"], 0, 9)
        self.assertEqual((plan["num_components"], plan["duplicate_slots"], plan["bound_mean"]), (1, 0, 0))
        table = self.eplb("plan", "--loads", loads, "--ep_size", 2, "--num_slots", 4, "--output_path", self.out / "p.yaml")
        self.assertEqual(table.splitlines()[-1].split()[0], "all")
        self.assertIn("duplicate", table)

    def test_plans_compare_with_the_layout_that_was_recorded(self):
        slots, layout = self.out / "slots", self.out / "layout.yaml"
        self.eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 32, "--output_path", layout)
        again = json.loads(self.eplb("plan", "--expert_statistic_path", SMALL, "--eplb_config", layout, "--num_slots", 32,
                                     "--policy", "contiguous", "--output_path", slots, "--json"))
        self.assertGreater(again["slots_changed"], 0)
        # A scenario plan from scratch names its ranks so that as many slots as possible hold what they held.
        self.eplb("plan", "--expert_statistic_path", SMALL, "--eplb_config", layout, "--num_slots", 32, "--policy", "scenario",
                  "--output_path", slots)
        held, planned = ([[json.loads(row)[r * 8:r * 8 + 8] for r in range(4)]
                          for row in re.findall(r"\[.*\]", path.read_text())] for path in (layout, slots))
        for before, after in zip(held, planned):
            kept = [[len(set(a) & set(b)) for b in after] for a in before]
            best = max(sum(kept[r][named[r]] for r in range(4)) for named in itertools.permutations(range(4)))
            self.assertEqual(sum(kept[r][r] for r in range(4)), best)
            self.assertEqual(sum(a == b for r in range(4) for a, b in zip(before[r], after[r])), best)

    def test_plans_weigh_fetches_against_their_price(self):
        layout, out = self.out / "layout.yaml", self.out / "p.yaml"
        self.eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 32, "--policy", "contiguous", "--output_path", layout)
        plan = ["plan", "--expert_statistic_path", SMALL, "--eplb_config", layout, "--num_slots", 32, "--policy", "scenario",
                "--output_path", out, "--json"]
        plans, files = [], []
        for price in ([], ["--fetch_price", 0], ["--fetch-price", 0.03], ["--fetch_price", 1e6]):
            plans.append(json.loads(self.eplb(*plan, *price)))
            files.append(re.findall(r"\[.*\]", out.read_text()))
        self.assertEqual(files[0], files[1])
        self.assertEqual([found.get("fetch_price") for found in plans], [None, 0, 0.03, 1e6])
        self.assertGreater(plans[1]["slots_changed"], plans[2]["slots_changed"])
        self.assertGreater(plans[2]["slots_changed"], 0)
        self.assertLess(plans[2]["imbalance_planned_optimal"], plans[2]["imbalance_now_optimal"])
        self.assertEqual(plans[3]["slots_changed"], 0)
        self.assertEqual(files[3], re.findall(r"\[.*\]", layout.read_text()))

    def test_writes_one_page_with_heat_map_and_projection(self):
        page, plan = self.out / "page.html", SMALL / "expected_eplb_8x40.yaml"
        table = self.eplb("report", "--expert_statistic_path", SMALL, "--html", page)
        self.assertEqual(table, (SMALL / "expected_report.txt").read_text())
        text = page.read_text()
        self.assertIn("prefers-color-scheme:dark", text)
        self.assertNotIn(str(SMALL), text)
        for foreign in ("http:", "https:", "<script", "src="):
            self.assertNotIn(foreign, text)
        both = self.eplb("report", "--expert_statistic_path", SMALL, "--projection_eplb_config_path", plan,
                         "--ep_size", 8, "--html", "-")
        self.assertTrue(both.startswith("<!DOCTYPE html>"))
        self.assertIn("After: expected_eplb_8x40.yaml with 40 slots on 8 ranks", both)
        self.assertIn("only one can have standard output",
                      self.eplb("report", "--expert_statistic_path", SMALL, "--html", "-", "--json", code=2))

    def test_diagnoses_in_three_sentences(self):
        asked = ["diagnose", "--expert_statistic_path", SMALL, "--ep_size", 8, "--num_slots", 32, "--split", "optimal"]
        sentences = self.eplb(*asked)
        self.assertEqual(len(sentences.splitlines()), 3)
        self.assertIn("32 slots on 8 ranks", sentences.splitlines()[0])
        self.assertIn("32 experts + 8 ranks - 1 = 39 slots on", sentences)
        found = json.loads(self.eplb(*asked, "--json"))
        self.assertEqual(found["text"], sentences)
        self.assertEqual([(size["num_slots"], size["ep_size"]) for size in found["others"]],
                         [(40, 8), (48, 8), (36, 4), (48, 16)])

    def test_diagnoses_load_tables_with_drawn_batches(self):
        even, skewed = self.out / "even.csv", self.out / "skewed.csv"
        even.write_text(",".join(["10"] * 16) + "\n")
        skewed.write_text(",".join(["400"] + ["10"] * 15) + "\n")
        options = ["--ep_size", 4, "--top_k", 2, "--tokens_per_rank", 4096, "--wobble", 0, "--json"]
        self.assertEqual(json.loads(self.eplb("diagnose", "--loads", even, *options))["worth"], "no")
        found = json.loads(self.eplb("diagnose", "--loads", skewed, *options))
        self.assertEqual((found["worth"], found["limit"]), ("yes", "replica_capacity"))
        self.assertGreater(found["best"]["num_slots"], 16)
        self.assertIn("at least 2 are needed", self.eplb("diagnose", "--expert_statistic_path", SMALL, "--iter_start", 105,
                                                        code=2))

    def write_statistics(self, hot_of_iteration, num_experts=16, tokens=(2000,)):
        """One rank, layer 0: the hot experts of each iteration have 9 times the tokens of the others, give or take chance.
        Iteration i has tokens[i mod their number]."""
        generator = random.Random(1)
        rows = [generator.choices(range(num_experts), [9 if e in hot else 1 for e in range(num_experts)],
                                  k=tokens[i % len(tokens)]) for i, hot in enumerate(hot_of_iteration)]
        folder = self.out / "statistics"
        folder.mkdir(exist_ok=True)
        (folder / "meta_info.json").write_text(json.dumps({"num_experts": num_experts, "num_experts_per_token": 2}))
        header, data = {}, b""
        for i, row in enumerate(rows):
            counts = struct.pack(f"<{num_experts}q", *(row.count(e) for e in range(num_experts)))
            header[f"{i}_0"] = {"dtype": "I64", "shape": [num_experts], "data_offsets": [len(data), len(data) + len(counts)]}
            data += counts
        write_safetensors(folder / "rank0.safetensors", header, data)
        return folder

    def test_diagnoses_drift_only_where_the_order_of_batches_matters(self):
        early, late = range(4), range(8, 12)
        options = ["--ep_size", 8, "--num_slots", 24, "--json", "--engine", "wideload"]
        found = json.loads(self.eplb("diagnose", "--expert_statistic_path",
                                     self.write_statistics([early] * 8 + [late] * 8), *options))
        self.assertEqual(found["limit"], "drift")
        self.assertLess(found["imbalance_interleaved"], found["asked"]["imbalance_optimal"] / 2)
        found = json.loads(self.eplb("diagnose", "--expert_statistic_path",
                                     self.write_statistics([early, early, late, late] * 4), *options))
        self.assertNotEqual(found["limit"], "drift")
        # Drawn batches know no order: what a plan loses on others is their noise.
        loads = self.out / "loads.csv"
        loads.write_text(",".join(str(5 + expert % 7) for expert in range(64)) + "\n")
        found = json.loads(self.eplb("diagnose", "--loads", loads, "--ep_size", 16, "--num_slots", 80, "--tokens_per_rank", 2,
                                     "--json"))
        self.assertEqual(found["limit"], "batch_noise")
        self.assertGreater(found["asked"]["imbalance_optimal"], 2 * found["asked"]["imbalance_on_recorded"])

    def test_takes_the_steps_of_sglang_for_batches(self):
        steps = [[[0] * 8, [9 if e // 2 == s // 8 else 1 for e in range(8)]] for s in range(16)]  # hot experts move once
        counts = self.out / "counts.json"
        counts.write_text(json.dumps({"logical_count": steps}))
        options = ["--loads", counts, "--ep_size", 4, "--json"]
        found = json.loads(self.eplb("diagnose", *options, "--num_slots", 12))
        self.assertEqual((found["limit"], found["routed_tokens_per_iteration"]), ("drift", 24))
        self.eplb("plan", *options, "--output_path", self.out / "plan.yaml", "--num_slots", 12, "--policy", "scenario")
        alone = {"logical_count": [[sum(step[l][e] for step in steps) for e in range(8)] for l in range(2)]}
        counts.write_text(json.dumps(alone))
        found = json.loads(self.eplb("diagnose", *options, "--num_slots", 12, "--top_k", 2, "--tokens_per_rank", 6))
        self.assertEqual(found["routed_tokens_per_iteration"], 48)

    def test_converts_loads_there_and_back(self):
        table, tensor, sglang, again = (self.out / name for name in ("a.csv", "b.safetensors", "c.json", "d.csv"))
        self.eplb("convert", SMALL, table)
        self.eplb("convert", table, tensor)
        self.eplb("convert", f"{tensor}:load", sglang)
        self.eplb("convert", sglang, again)
        rows = again.read_text().splitlines()
        self.assertEqual([rows[0], rows[4], rows[5], rows[8]], table.read_text().splitlines())

    def test_converts_placements_there_and_back(self):
        plan = SMALL / "expected_eplb_8x40.yaml"
        self.eplb("convert", plan, self.out / "a.json")
        self.eplb("convert", self.out / "a.json", self.out / "b.yaml")
        self.assertLess(set(plan.read_text().splitlines()), set((self.out / "b.yaml").read_text().splitlines()))

    def test_never_mixes_two_runs(self):
        folder = self.out / "run"
        self.eplb("convert", SMALL, folder)
        self.assertIn("of another run", self.eplb("convert", SMALL, folder, code=2))
        self.eplb("convert", SMALL, folder, "--replace", "--iter_start", 104)
        self.assertIn('"iter_start": 104', self.eplb("report", "--expert_statistic_path", folder, "--json"))

    def test_cuts_routing_into_iterations(self):
        folder = self.out / "run"
        routing = SHARED / "models/wideload-14m/routing.safetensors"
        if not routing.exists():
            self.skipTest(f"{routing} is not there")
        self.eplb("convert", routing, folder, "--tokens_per_iteration", 1024)
        report = json.loads(self.eplb("report", "--expert_statistic_path", folder, "--ep_size", 8, "--json"))
        self.assertEqual((report["iter_stop"], report["average"]["mean"]), (54, 768))

    def test_checks_a_file_against_a_model(self):
        loads = self.out / "loads.csv"
        loads.write_text("\n".join(",".join(str(1 + (e * 7 + l) % 13) for e in range(64)) for l in range(5)))
        plan = self.out / "plan.yaml"
        self.eplb("plan", "--loads", loads, "--ep_size", 8, "--num_slots", 80, "--output_path", plan)
        found = json.loads(self.eplb("check", plan, "--model", MODEL, "--ep_size", 8, "--json"))
        self.assertEqual((found["num_moe_layers"], found["num_slots"]), (5, 80))
        self.assertEqual(found["bytes_per_rank"], 10 * 5 * found["expert_bytes"])
        self.assertIn("must be at least 64 (experts) and a multiple of 7",
                      self.eplb("check", plan, "--model", MODEL, "--ep_size", 7, code=2))
        self.eplb("plan", "--expert_statistic_path", SMALL, "--num_slots", 80, "--output_path", plan)
        self.assertIn("places 32 experts; the model has 64",
                      self.eplb("check", plan, "-m", MODEL, "--ep_size", 8, code=2))

    def test_lists_every_number_of_ranks_when_nobody_tells_it(self):
        plan = self.out / "plan.yaml"
        plan.write_text("num_slots: 80\n")
        found = json.loads(self.eplb("check", plan, "--model", MODEL, "--json"))
        self.assertEqual([layout["ep_size"] for layout in found["layouts"]], [2, 4, 5, 8, 10, 16, 20, 40])
        self.assertEqual(found["layouts"][3]["bytes_per_rank"], 10 * 5 * found["expert_bytes"])
        self.assertIn("     8 ranks:   10 slots each", self.eplb("check", plan, "--model", MODEL))

    def test_checks_a_model_with_dense_and_prediction_layers(self):
        model = self.out / "model"
        model.mkdir()
        config = json.loads((MODEL / "config.json").read_text())
        config.update(first_k_dense_replace=2, num_nextn_predict_layers=1, quantization_config={"quant_method": "fp8"})
        (model / "config.json").write_text(json.dumps(config))
        plan = self.out / "plan.yaml"
        for layers, count in (((2, 3, 4), 3), ((2, 3, 4, 5), 4)):
            plan.write_text("num_slots: 64\ninitial_global_assignments:\n" +
                            "".join(f"  {layer}: {list(range(64))}\n" for layer in layers))
            found = json.loads(self.eplb("check", plan, "--model", model, "--ep_size", 8, "--json"))
            self.assertEqual((found["layers"], found["from_weights"]), (list(layers), False))
            weights = 3 * config["hidden_size"] * config["moe_intermediate_size"]
            self.assertEqual((found["expert_bytes"], found["bytes_per_rank"]), (weights, 8 * count * weights))
        plan.write_text(plan.read_text().replace("  5:", "  0:"))
        self.assertIn("assignments.0 is no MoE layer of the model; allowed: 2, 3, 4",
                      self.eplb("check", plan, "--model", model, "--ep_size", 8, code=2))

    def test_numbers_layers_as_the_model_does(self):
        loads, plan = self.out / "loads.csv", self.out / "plan.yaml"
        loads.write_text("0,0\n4,1\n1,4\n")
        for layers, keys in (("1-2", "1 2"), ("2", "2"), ("3,5-6", "3 5 6")):
            self.eplb("plan", "--loads", loads, "--ep_size", 2, "--layers", layers, "--output_path", plan)
            found = [line.split(":")[0].strip() for line in plan.read_text().splitlines() if line.startswith("  ")]
            self.assertEqual(found, keys.split())

    def test_tells_the_time_per_layer(self):
        plan = json.loads(self.eplb("plan", "--expert_statistic_path", SMALL, "--policy", "scenario", "--output_path",
                                    self.out / "p.yaml", "--json"))
        self.assertTrue(all(row["plan_ms"] > 0 for row in plan["layers"]))
        self.assertAlmostEqual(plan["plan_ms"], sum(row["plan_ms"] for row in plan["layers"]), 9)

    def recorded_plan(self, policy="scenario"):
        """A plan of 40 slots on 8 ranks from the first half of SMALL."""
        plan = self.out / "plan.yaml"
        self.eplb("plan", "--expert_statistic_path", SMALL, "--iter_stop", 103, "--ep_size", 8, "--num_slots", 40,
                  "--policy", policy, "--output_path", plan)
        return plan

    def repair(self, plan, *more):
        return json.loads(self.eplb("repair", "--from", plan, "--expert_statistic_path", SMALL, "--iter_start", 103,
                                    "--output_path", self.out / "new.yaml", "--json", *more))

    def slots(self, path):
        return {int(line.split(":")[0]): json.loads(line.split(":")[1])
                for line in path.read_text().splitlines() if line.startswith("  ")}

    def test_repairs_until_and_within_the_budget(self):
        plan = self.recorded_plan("tensorrt_llm")
        self.assertIn("--ep_size is missing", self.eplb("repair", "--from", plan, "--loads", self.table(), "--output_path",
                                                        self.out / "new.yaml", code=2))
        far = self.repair(plan, "--ep_size", 8, "--until", 0.02)
        self.assertEqual((far["layers_above_until"], far["num_slots"]), (0, 40))
        self.assertTrue(all(row["imbalance_after"] <= 0.02 for row in far["layers"]))
        self.assertGreater(far["slots_fetched"], 0)
        near = self.repair(plan, "--ep_size", 8, "--until", 0, "--max_fetched_slots", 1)
        before, after = self.slots(plan), self.slots(self.out / "new.yaml")
        for row in near["layers"]:
            self.assertLessEqual(row["fetched_slots"], 1)
            self.assertLessEqual(row["imbalance_after"], row["imbalance_before"])
            pairs = zip(before[row["layer"]], after[row["layer"]])
            self.assertEqual(sum(a != b for a, b in pairs), row["fetched_slots"])
        same = self.repair(plan, "--ep_size", 8, "--max_fetched_slots", 0)
        self.assertEqual((same["slots_fetched"], self.slots(self.out / "new.yaml")), (0, before))

    def table(self):
        path = self.out / "table.csv"
        self.eplb("convert", SMALL, path)
        return path

    def test_repair_knows_the_ranks_of_a_plan_and_of_a_repaired_plan(self):
        plan = self.recorded_plan()
        self.assertEqual(plan.read_text().splitlines()[-1], "# ep_size: 8")
        new, newer = self.out / "new.yaml", self.out / "newer.yaml"
        for source, target in ((plan, new), (new, newer)):
            found = json.loads(self.eplb("repair", "--loads", self.table(), "--from", source, "--output_path", target, "--json"))
            self.assertEqual(found["ep_size"], 8)

    def test_repairs_for_an_even_split_within_the_budget(self):
        plan = self.recorded_plan("tensorrt_llm")
        last = 1
        for budget in (0, 2, 10):
            found = self.repair(plan, "--ep_size", 8, "--until", 0, "--split", "even", "--max_fetched_slots", budget)
            self.assertEqual(found["split"], "even")
            self.assertTrue(all(row["fetched_slots"] <= budget for row in found["layers"]))
            report = json.loads(self.eplb("report", "--expert_statistic_path", SMALL, "--iter_start", 103, "--json",
                                          "--projection_eplb_config_path", self.out / "new.yaml"))
            self.assertAlmostEqual(report["average"]["imbalance_ratio"], found["imbalance_after"], places=6)
            self.assertLess(found["imbalance_after"], last)
            last = found["imbalance_after"]
        self.assertIn("allowed for repair: even, round_robin, optimal", self.eplb(
            "repair", "--from", plan, "--expert_statistic_path", SMALL, "--split", "random", "--output_path",
            self.out / "new.yaml", code=2))

    def test_repair_covers_experts_of_dead_ranks_whatever_the_budget(self):
        plan = self.recorded_plan()
        found = self.repair(plan, "--dead_ranks", "2", "--max_fetched_slots", 0)
        for layer, slots in self.slots(self.out / "new.yaml").items():
            live = slots[:10] + slots[15:]
            self.assertEqual(set(live), set(range(32)), layer)
            self.assertEqual(slots[10:15], self.slots(plan)[layer][10:15])
        self.assertEqual(found["dead_ranks"], [2])
        self.assertGreater(found["slots_fetched"], 0)

    def test_repair_keeps_experts_on_their_nodes(self):
        plan = self.out / "hierarchical.yaml"
        self.eplb("plan", "--expert_statistic_path", SMALL, "--iter_stop", 102, "--ep_size", 8, "--num_slots", 40, "--policy",
                  "deepseek", "--nodes", 2, "--num_groups", 4, "--output_path", plan)

        def crossing(found):
            return [row["cross_node_slots_after"] for row in found["layers"]]

        for cross, most in (([], 2), (["--cross_node_slots", 0], 0), (["--cross_node_slots", 1], 1)):
            for until in (0, 0.05):
                found = self.repair(plan, "--nodes", 2, "--num_groups", 4, "--until", until, *cross)
                self.assertGreater(found["slots_fetched"], 0)
                self.assertEqual([row["cross_node_slots_before"] for row in found["layers"]], [0, 0, 0])
                self.assertLessEqual(max(crossing(found)), most)
                if until == 0:
                    self.assertEqual(max(crossing(found)), most)
        flat = self.repair(plan, "--until", 0)
        self.assertNotIn("cross_node_slots_after", flat["layers"][0])
        self.assertLess(flat["imbalance_after"], self.repair(plan, "--nodes", 2, "--num_groups", 4, "--until", 0,
                                                             "--cross_node_slots", 0)["imbalance_after"])

    def test_repair_writes_to_standard_output(self):
        plan = self.recorded_plan()
        text = self.eplb("repair", "--from", plan, "--loads", self.table(), "--output_path", "-")
        self.assertTrue(text.startswith("initial_global_assignments:\n  3: ["))

    def simulate(self, *more):
        return json.loads(self.eplb("simulate", "--expert_statistic_path", SMALL, "--ep_size", 8, "--num_slots", 40,
                                    "--policies", "tensorrt_llm,deepseek,scenario", "--splits",
                                    "even,optimal,optimal_fractional", "--json", *more))

    def test_simulates_every_policy_and_split(self):
        found = self.simulate("--shared_expert_cost", 1)
        self.assertEqual([(r["policy"], r["split"]) for r in found["results"]],
                         [(p, s) for p in ("tensorrt_llm", "deepseek", "scenario")
                          for s in ("even", "optimal", "optimal_fractional")])
        self.assertEqual((found["layers"], found["iterations"], found["num_experts"]), (3, 3, 32))
        for even, optimal, fractional in zip(*[iter(found["results"])] * 3):
            self.assertEqual(optimal["iterations_above_ceil"], 0)
            self.assertAlmostEqual(optimal["imbalance_fractional_mean"], fractional["imbalance_mean"], 9)
            self.assertLessEqual(fractional["imbalance_mean"], optimal["imbalance_mean"])
            self.assertLessEqual(optimal["imbalance_mean"], even["imbalance_mean"])
            for result in (even, optimal, fractional):
                self.assertLessEqual(result["imbalance_mean"], result["imbalance_p99"])
                shared = result["shared_expert"]
                self.assertLessEqual(shared["imbalance_mean"], shared["imbalance_home_mean"] + 1e-9)
        for key in ("floor", "clairvoyant", "component_bound", "routed_tokens_per_iteration"):
            self.assertGreaterEqual(found[key], 0)

    def test_simulates_dead_ranks_nodes_and_repair(self):
        dead = self.simulate("--dead_ranks", "3")["results"][0]
        self.assertGreater(dead["slots_fetched_first_per_layer"], 0)
        self.assertGreater(dead["imbalance_mean"], self.simulate()["results"][0]["imbalance_mean"])
        nodes = {r["policy"]: r["cross_node_replicas_per_layer"]
                 for r in self.simulate("--nodes", 2, "--num_groups", 4)["results"]}
        self.assertEqual(nodes["deepseek"], 0)
        self.assertGreater(nodes["tensorrt_llm"], 0)
        for cross in (0, 1):
            found = self.simulate("--nodes", 2, "--num_groups", 4, "--cross_node_slots", cross)["results"]
            self.assertEqual({r["cross_node_replicas_per_layer"] for r in found if r["policy"] == "scenario"}, {cross})
        repaired = self.simulate("--repair_slots_per_layer", 2)["results"][0]
        self.assertTrue(0 < repaired["slots_fetched_per_layer"] <= 2)
        repaired = self.simulate("--repair_slots_per_layer", 2, "--nodes", 2, "--num_groups", 4, "--cross_node_slots", 1)["results"]
        crossing = {r["policy"]: r["cross_node_replicas_repaired_per_layer"] for r in repaired}
        self.assertEqual(crossing["scenario"], 1)
        self.assertTrue(0 < crossing["deepseek"] <= 2, crossing)

    def test_simulates_an_online_balancer(self):
        folder = self.write_statistics([range(4)] * 8 + [range(8, 12)] * 8, tokens=(4000, 300))
        source = ["--expert_statistic_path", folder, "--ep_size", 4, "--num_slots", 24, "--splits", "optimal"]

        def imbalance(mode, *more):
            return json.loads(self.eplb("simulate", *source, "--rebalance", mode, "--json", *more))["results"][0]

        contiguous = json.loads(self.eplb("simulate", *source, "--policies", "contiguous", "--json"))["results"][0]
        repair = imbalance("repair", "--max_fetched_slots_per_iter", 8)
        self.assertLess(repair["imbalance_mean"], contiguous["imbalance_mean"] / 2)
        self.assertGreater(repair["slots_fetched_per_layer"], 0)
        self.assertEqual(repair["imbalance_mean"], imbalance("repair", "--max_fetched_slots_per_iter", 8)["imbalance_mean"])
        self.assertGreater(imbalance("tensorrt_llm")["slots_fetched_per_layer"], repair["slots_fetched_per_layer"])
        self.assertIn("repair", self.eplb("simulate", *source, "--rebalance", "repair"))

    def test_simulates_the_plans_that_plan_writes(self):
        folder = self.write_statistics([range(4), range(8, 12)] * 4, tokens=(4000, 300))
        plan = self.out / "plan.yaml"
        sizes = ["--expert_statistic_path", folder, "--ep_size", 4]
        for policy in ("contiguous", "tensorrt_llm", "deepseek"):
            with self.subTest(policy):
                self.eplb("plan", *sizes, "--num_slots", 24, "--policy", policy, "--iter_stop", 4, "--output_path", plan)
                report = json.loads(self.eplb("report", *sizes, "--projection_eplb_config_path", plan, "--iter_start", 4, "--json"))
                found = json.loads(self.eplb("simulate", *sizes, "--num_slots", 24, "--policies", policy, "--splits", "even", "--json"))
                self.assertAlmostEqual(found["results"][0]["imbalance_mean"], report["average"]["imbalance_ratio"], 6)

    def test_says_what_it_converted(self):
        found = json.loads(self.eplb("convert", SMALL, self.out / "loads.csv", "--json"))
        self.assertEqual((found["holds"], found["num_layers"], found["num_experts"]), ("loads", 3, 32))
        self.eplb("convert", SMALL, self.out / "folder", "--json")
        placement = json.loads(self.eplb("convert", SMALL / "expected_eplb_8x40.yaml", self.out / "a.json", "--json"))
        self.assertEqual(placement["holds"], "placement")

    def test_diagnoses_layers_in_equal_steps(self):
        loads = self.out / "loads.csv"
        loads.write_text("0,0,0,0\n" + "4,1,2,1\n" * 20)
        command = ["diagnose", "--loads", loads, "--ep_size", 2, "--top_k", 2, "--json"]
        self.assertEqual(json.loads(self.eplb(*command))["layers"], [1, 3, 6, 9, 11, 14, 17, 20])
        self.assertEqual(json.loads(self.eplb(*command, "--max_layers", 0))["layers"], list(range(1, 21)))
        self.assertEqual(json.loads(self.eplb(*command, "--max_layers", 1))["layers"], [11])

    def test_refuses_by_name(self):
        refused = [(["plan", "--output_path", "-"], "exactly one is allowed"),
                   (["plan", "--loads", SMALL / "none.csv", "--ep_size", 2, "--output_path", "-"], "no such file"),
                   (["plan", "--expert_statistic_path", SMALL, "--policy", "best", "--output_path", "-"],
                    "allowed: contiguous, tensorrt_llm, deepseek"),
                   (["plan", "--expert_statistic_path", SMALL, "--num_slots", 41, "--output_path", "-"],
                    "num_slots is 41"),
                   (["report", "--expert_statistic_path", SMALL, "--iter_stop", 107], "must be a range within"),
                   (["report", "--expert_statistic_path", SMALL, "--ep_size", 5], "ep_size is 5; it must divide 32"),
                   (["convert", SMALL, self.out / "a.yaml"], "holds no placement"),
                   (["convert", SMALL / "expected_eplb_8x40.yaml", self.out / "a.csv"], "holds no loads")]
        for arguments, message in refused:
            self.assertIn(message, self.eplb(*arguments, code=2))
        self.assertEqual(list(self.out.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
