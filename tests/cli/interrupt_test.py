"""SIGINT and SIGTERM end every run cleanly: exit code 128 + signal, what is written is whole or not there."""
import json
import os
import signal
import subprocess

from cli_support import PROGRAM, STARTED, TIMEOUT_S, CliTest

INTERRUPTED = 130  # 128 + SIGINT


class Interrupt(CliTest):
    def test_generate_ends_with_what_it_has(self):
        code, stdout, stderr = self.interrupt(
            ["generate", "-p", "Once upon a time", "-n", "2000", "--ignore-eos", "--threads", "1"],
            lambda out, err: len(out) > 20)
        self.assertEqual(code, INTERRUPTED, stderr)
        self.assertTrue(stdout.endswith("\n"))
        self.assertNotIn("error", stderr)

    def test_generate_json_stays_one_document(self):
        code, stdout, stderr = self.interrupt(
            ["generate", "-p", "Once upon a time", "-n", "2000", "--ignore-eos", "--json", "--threads", "1"],
            lambda out, err: STARTED.encode() in err)
        self.assertEqual(code, INTERRUPTED, stderr)
        self.assertEqual(json.loads(stdout)["finish_reason"], "cancelled")

    def test_chat_waiting_for_input(self):
        process = subprocess.Popen([str(PROGRAM), "chat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        for line in process.stderr:
            if b"type a message" in line:
                break
        os.kill(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT_S), INTERRUPTED)
        process.communicate()

    def long_dataset(self):
        return self.rows("rows.jsonl", [{"task_id": i, "input_ids": [1 + i], "output_tokens": 1500} for i in range(64)])

    def test_bench_leaves_no_partial_output(self):
        dataset, out = self.long_dataset(), self.path("out.jsonl", "what was there before\n")
        for flags in ([], ["--ep", "4"], ["--warmup", "20"]):
            with self.subTest(flags):
                code, stdout, stderr = self.interrupt(
                    ["bench", "throughput", "--dataset", dataset, "--output", out, "--threads", "1", *flags],
                    lambda out, err: STARTED.encode() in err)
                self.assertEqual(code, INTERRUPTED, stderr)
                self.assertIn("interrupted", stderr)
                self.assertNotIn("error", stderr)
                self.assertEqual(out.read_text(), "what was there before\n")
                self.assertEqual(self.files(), ["out.jsonl", "rows.jsonl", "stderr", "stdout"])

    def test_statistics_are_written_when_the_run_ends_early(self):
        folder = self.folder / "statistics"
        code, stdout, stderr = self.interrupt(
            ["bench", "throughput", "--dataset", self.long_dataset(), "--ep", "2", "--threads", "1",
             "--expert-statistic-path", folder], lambda out, err: STARTED.encode() in err, signal.SIGTERM)
        self.assertEqual(code, 128 + signal.SIGTERM, stderr)
        self.assertEqual(json.loads((folder / "meta_info.json").read_text()),
                         {"num_experts": 64, "num_experts_per_token": 6})
        self.assertEqual(sorted(p.name for p in folder.iterdir()),
                         ["meta_info.json", "rank0.safetensors", "rank1.safetensors"])

    def test_logits_leaves_no_partial_output(self):
        ids = self.path("ids.json", [[i % 8000 for i in range(2000)]] * 24)
        code, stdout, stderr = self.interrupt(
            ["logits", "--input-ids", ids, "--output", self.folder / "out.safetensors", "--threads", "1",
             "--kernels", "reference"], lambda out, err: STARTED.encode() in err)
        self.assertEqual(code, INTERRUPTED, stderr)
        self.assertIn("interrupted", stderr)
        self.assertEqual(self.files(), ["ids.json", "stderr", "stdout"])
