"""`wideload eplb`: report, plan, convert and check as a user calls them."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

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
        sentences = self.eplb("diagnose", "--expert_statistic_path", SMALL, "--ep_size", 8, "--num_slots", 32)
        self.assertEqual(len(sentences.splitlines()), 3)
        self.assertIn("32 experts + 8 ranks - 1 = 39 slots on, 40 as a multiple", sentences)
        found = json.loads(self.eplb("diagnose", "--expert_statistic_path", SMALL, "--ep_size", 8, "--num_slots", 32,
                                     "--json"))
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
        routing = MODEL / "routing.safetensors"
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
