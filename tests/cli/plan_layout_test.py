#!/usr/bin/env python3
"""`wideload plan-layout`. Usage: plan_layout_test.py [unittest options]."""
import json
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import EMBEDDED, SOURCE, TINY, CliTest, run  # noqa: E402

class PlanLayout(CliTest):
    def plan(self, model, *flags, ranks=4, context=256, concurrency=16, memory="1G"):
        asked = ["--ranks", ranks, "--context", context, "--concurrency", concurrency, "--memory-per-rank", memory, "--json"]
        return json.loads(self.good("plan-layout", "-m", model, *asked, *flags).stdout)

    def test_config_json_alone_gives_the_bytes_of_the_weights(self):
        for folder in sorted((SOURCE / "testdata/models").glob("tiny-*")):
            if not (folder / "model.safetensors").exists() and not (folder / "model.safetensors.index.json").exists():
                continue
            with self.subTest(folder.name):
                bare = self.folder / folder.name
                bare.mkdir()
                shutil.copy(folder / "config.json", bare)
                measured, told = self.plan(folder), self.plan(bare)
                self.assertTrue(measured["are_weights_measured"])
                self.assertFalse(told["are_weights_measured"])
                self.assertEqual(told["layouts"], measured["layouts"])

    def test_parts_add_up_and_what_a_host_shares_is_shared(self):
        for layout in self.plan(TINY)["layouts"]:
            parts = layout["bytes_per_rank"]
            self.assertAlmostEqual(parts["total"], sum(parts.values()) - parts["total"], delta=8)
        hosts = self.plan(TINY, "--ranks-per-host", "2")["layouts"]
        one = {layout["flags"]: layout for layout in self.plan(TINY)["layouts"]}
        for layout in hosts:
            self.assertGreaterEqual(layout["bytes_per_rank"]["weights"], one[layout["flags"]]["bytes_per_rank"]["weights"])

    def test_questions_beyond_all_machines_are_refused(self):
        asked = ["plan-layout", "-m", TINY, "--memory-per-rank", "1G"]
        self.refused([*asked, "--ranks", "100000"], "--ranks is 100000; allowed: 1 to 4096")
        self.refused([*asked, "--ranks", "8", "--concurrency", str(2**63 - 1)], "--concurrency is 9223372036854775807; allowed: 1 to")

    def test_a_context_beyond_the_models_is_told(self):
        asked = ["plan-layout", "-m", EMBEDDED, "--ranks", "1", "--memory-per-rank", "1G", "--json"]
        done = self.good(*asked, "--context", "99999")
        self.assertIn("--context is 99999, more than the model's context: 2048 tokens are planned for", done.stderr)
        self.assertEqual(json.loads(done.stdout)["context"], 2048)
        self.assertNotIn("--context", self.good(*asked).stderr)

    def test_what_is_recommended_runs(self):
        flags = self.plan(EMBEDDED)["recommended"]
        done = self.good("generate", "-p", "Once", "-n", "2", *flags.split())
        self.assertIn("4 ranks", done.stderr)

    def test_ranks_without_requests_are_not_recommended(self):
        plan = self.plan(TINY, concurrency=1)
        self.assertIn("--tp 4 --dp 1", plan["recommended"])

    def test_contexts_are_shared_where_one_does_not_fit_otherwise(self):
        long = {"context": 2048, "concurrency": 1}
        layouts = self.plan(EMBEDDED, **long)["layouts"]
        by_flags = {layout["flags"]: layout["bytes_per_rank"]["kv_cache"] for layout in layouts}
        self.assertEqual(by_flags["--tp 1 --dp 4 --moe-tp 1 --ep 4"], 4 * by_flags["--tp 1 --cp 4 --dp 1 --moe-tp 1 --ep 4"])
        least = min(layout["bytes_per_rank"]["total"] for layout in layouts if layout["cp"] == layout["pp"] == 1)
        self.assertNotIn("--cp", self.plan(EMBEDDED, **long, memory=least)["recommended"])
        tight = self.plan(EMBEDDED, **long, memory=least - 1)
        self.assertIn("--cp", tight["recommended"])
        self.assertRegex(tight["reason"], "with contexts on fewer ranks the smallest takes .* per rank of .* \\(.*iB\\)")

    def test_stages_divide_the_weights_between_hosts_and_are_for_what_does_not_fit_without(self):
        plan = self.plan(EMBEDDED, "--ranks-per-host", "1")
        by_flags = {layout["flags"]: layout for layout in plan["layouts"]}
        whole, stage = by_flags["--tp 1 --dp 4 --moe-tp 1 --ep 4"], by_flags["--tp 1 --dp 1 --moe-tp 1 --ep 1 --pp 4"]
        self.assertLess(stage["bytes_per_rank"]["weights"], whole["bytes_per_rank"]["weights"] / 2)
        self.assertLess(stage["bytes_per_token"], whole["bytes_per_token"])
        self.assertNotIn("--pp", plan["recommended"])
        many = {"ranks": 8, "concurrency": 64}
        layouts = self.plan(EMBEDDED, "--ranks-per-host", "1", **many)["layouts"]
        least = min(layout["bytes_per_rank"]["total"] for layout in layouts if layout["refusal"] is None)
        plan = self.plan(EMBEDDED, "--ranks-per-host", "1", **many, memory=least)
        self.assertIn("--pp", plan["recommended"])
        self.assertRegex(plan["reason"], "with fewer stages the smallest takes .* per rank of .*iB")
        self.good("generate", "-p", "Once", "-n", "2", *plan["recommended"].split())

    def test_refuses_what_cannot_be(self):
        args = ["plan-layout", "-m", TINY, "--ranks", "2", "--memory-per-rank"]
        done = run(*args, "10K", "--json")
        self.assertNotEqual(done.returncode, 0)
        plan = json.loads(done.stdout)
        self.assertIsNone(plan["recommended"])
        self.assertIn("the smallest takes", plan["reason"])
        self.refused([*args, "much"], "--memory-per-rank")


if __name__ == "__main__":
    unittest.main()
