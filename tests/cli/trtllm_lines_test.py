"""Command lines of trtllm-serve and trtllm-bench, run as they are but for the program's name."""
import json
import unittest

from cli_support import EMBEDDED, CliTest
from serve_support import Server


class Bench(CliTest):
    def line(self, *before, after=()):
        rows = "".join(json.dumps({"task_id": i, "input_ids": [1, 2, 3], "output_tokens": 4}) + "\n" for i in range(2))
        options = self.path("options.yaml", "enable_attention_dp: true\nmoe_config: {backend: WIDEEP, max_num_tokens: 9216, "
                                            "load_balancer: {num_slots: 72, layer_updates_per_iter: 1}}\n")
        return ["bench", *before, "throughput", "--tp", "2", "--ep", "2", "--extra_llm_api_options", options,
                "--kv_cache_free_gpu_mem_fraction", "0.05", "--backend", "pytorch", "--dataset", self.path("rows.jsonl", rows),
                "--warmup", "0", "--eos_id", "-1", *after]

    def test_the_line_of_the_guide_runs(self):
        report, page = self.folder / "report.json", self.folder / "report.html"
        done = self.good(*self.line("--model", "org/NAME", "--model_path", EMBEDDED,
                                    after=("--report_json", report, "--report", page)))
        self.assertEqual(json.loads(report.read_text())["engine"]["model"], "org/NAME")
        self.assertIn("A run of org/NAME", page.read_text())
        self.assertIn("2 ranks", done.stderr)
        self.assertIn("72 slots", done.stderr)
        self.assertIn("2 ranks", self.good(*self.line("--model", EMBEDDED)).stderr)

    def test_what_it_contradicts_is_named(self):
        self.refused(self.line("--model_path", EMBEDDED, after=("--model", "other")), "other by --model and .* by bench --model-path")
        self.refused(self.line("--model", "none"), "none")
        self.refused(self.line("--model", EMBEDDED, after=("--eos_id", "8192")), "--eos-id is -1|--eos-id is 8192")
        self.refused([part if part != "pytorch" else "tensorrt" for part in self.line("--model", EMBEDDED)],
                     "--backend is tensorrt; allowed: pytorch")
        self.refused(["bench", "--model", "x", "serve", "--port", "1"], "--model is an option of bench, not of bench serve")


class Serve(CliTest):
    def test_the_model_is_the_first_argument(self):
        options = self.path("parallel_config.yaml", "enable_attention_dp: true\n")
        server = Server(EMBEDDED, "--tp_size", "2", "--ep_size", "2", "--config", options, "--backend", "pytorch")
        self.addCleanup(server.end)
        self.assertEqual(server.model, "wideload-14m")
        self.assertIn("2 ranks x", server.stderr())

    def test_two_models_are_refused(self):
        self.refused(["serve", "a", "-m", "b"], "the model is b by --model and a by the first argument")
        self.refused(["serve", "a", "b"], "b.* was not expected")
        self.refused(["serve", self.folder / "none", "--port", "0"], "none")


if __name__ == "__main__":
    unittest.main()
