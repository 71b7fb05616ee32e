"""/metrics of `wideload serve`: promtool's judgement, and the names that Grafana's dashboard asks for."""
import json
import re
import shutil
import subprocess
import unittest

from cli_support import SOURCE
from serve_support import ServeTest

SERIES = ("_bucket", "_sum", "_count")


class Metrics(ServeTest):
    FLAGS = ("--ep", "2", "--num-slots", "72", "--rebalance", "repair")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server.post("/v1/completions", prompt="Once upon a time", max_tokens=20, ignore_eos=True)
        cls.server.wait_idle()
        cls.text = cls.server.ask("GET", "/metrics")[2].decode()

    def test_promtool_has_no_complaint(self):
        if shutil.which("promtool") is None:
            self.skipTest("promtool is not here: apt-get install prometheus")
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.text, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))

    def test_the_dashboard_of_grafana_asks_for_what_there_is(self):
        dashboard = json.loads((SOURCE / "deploy/grafana/wideload.json").read_text())
        asked = set(re.findall(r"wideload_\w+", json.dumps(dashboard)))
        there = set(re.findall(r"^# TYPE (\w+)", self.text, re.M))
        there |= {name + series for name in re.findall(r"^# TYPE (\w+) histogram", self.text, re.M) for series in SERIES}
        self.assertEqual(asked - there, set())
        self.assertGreater(len(asked), 20)

    def test_each_metric_is_described_once(self):
        names = re.findall(r"^# TYPE (\w+)", self.text, re.M)
        self.assertEqual(len(names), len(set(names)))

    def test_layers_add_up(self):
        metric = self.server.metric
        self.assertEqual(metric("eplb_rank_tokens_total"), metric("exchange_returns_total"))
        self.assertEqual(metric("eplb_moves_total"), metric("eplb_fetched_slots_total"))
        self.assertEqual(metric("kv_cache_used_blocks") + metric("kv_cache_free_blocks"), metric("kv_cache_max_blocks"))
        self.assertEqual(metric("num_requests_completed_total"), metric("time_per_output_token_seconds_count"))
        self.assertEqual(metric("eplb_move_bytes_total") > 0, metric("eplb_fetched_slots_total") > 0)

    def test_times_of_a_request_add_up(self):
        metric = self.server.metric
        parts = [metric(f"request_{part}_time_seconds_sum") for part in ("queue", "prefill", "decode")]
        self.assertEqual(metric("request_queue_time_seconds_count"), metric("num_requests_completed_total"))
        self.assertTrue(all(part > 0 for part in parts), parts)
        self.assertAlmostEqual(metric("request_inference_time_seconds_sum"), parts[1] + parts[2], places=4)
        self.assertAlmostEqual(metric("time_to_first_token_seconds_sum"), parts[0] + parts[1], places=4)
        # the end is noted a little after the last token
        self.assertLessEqual(sum(parts), metric("e2e_request_latency_seconds_sum"))

    def test_memory_is_told_by_use(self):
        parts = dict(re.findall(r'memory_planned_bytes\{.*part="([^"]+)"\} (\d+)', self.text))
        for part in ("weights", "KV cache", "exchange", "buffers"):
            self.assertGreater(int(parts[part]), 0, part)
        self.assertGreater(self.server.metric("cpu_memory_usage_bytes"), int(parts["weights"]))


if __name__ == "__main__":
    unittest.main()
