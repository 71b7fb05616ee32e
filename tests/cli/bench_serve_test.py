#!/usr/bin/env python3
"""`wideload bench serve` against our server and against others that are simple, slow or broken.
Usage: bench_serve_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import contextlib
import http.server
import json
import os
import pathlib
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import EMBEDDED, CliTest, run  # noqa: E402
from serve_support import Server  # noqa: E402


def bench(port, *more):
    return ["bench", "serve", "--port", port, *more]


class OurServer(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-open-requests", "16")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.end() == 0, cls.server.stderr()

    def report(self, *more):
        return json.loads(self.good(*bench(self.server.port, "--json", *more)).stdout)

    def test_closed_loop_counts_the_tokens_that_the_server_counts(self):
        before = {name: self.server.metric(f"{name}_tokens_total") for name in ("prompt", "generation")}
        found = self.report("--num-prompts", 12, "--input-len", 20, "--random-range-ratio", 0.5, "--output-len", 6,
                            "--max-concurrency", 3, "--ignore-eos", "--goodput", "ttft:1e6", "e2el:0.001")
        self.assertEqual((found["completed"], found["failed"]), (12, 0))
        self.assertLessEqual(found["max_concurrent_requests"], 3)
        self.assertEqual(found["total_input_tokens"], self.server.metric("prompt_tokens_total") - before["prompt"])
        self.assertEqual(found["total_output_tokens"], self.server.metric("generation_tokens_total") - before["generation"])
        self.assertEqual(found["request_goodput"], 0)
        self.assertGreater(found["mean_ttft_ms"], 0)
        self.assertGreaterEqual(found["p99_e2el_ms"], found["median_e2el_ms"])

    def test_open_loop_starts_requests_when_they_are_due(self):
        path = self.folder / "out" / "result.json"
        path.parent.mkdir()
        self.good(*bench(self.server.port, "--dataset-name", "embedded", "--num-prompts", 10, "--request-rate", 50,
                         "--output-len", 2, "--save-result", "--save-detailed", "--result-dir", path.parent,
                         "--result-filename", path.name, "--metadata", "a=b"))
        found = json.loads(path.read_text())
        self.assertEqual((found["completed"], found["a"], found["request_rate"]), (10, "b", 50))
        self.assertEqual(found["start_times"], sorted(found["start_times"]))
        self.assertGreaterEqual(found["start_times"][-1], 10 / 50 - 1e-6)
        self.assertEqual(found["errors"], [""] * 10)
        self.assertTrue(all(len(found[name]) == 10 for name in ("ttfts", "itls", "output_lens", "generated_texts")))

    def test_rows_of_a_dataset_go_to_completions_and_chats(self):
        rows = self.rows("rows.jsonl", [{"task_id": 0, "prompt": "Once upon a time", "output_tokens": 3},
                                        {"task_id": 1, "input_ids": [5, 6, 7], "output_tokens": 4}])
        for backend in ("openai", "openai-chat"):
            found = self.report("--backend", backend, "--dataset-name", "custom", "--dataset-path", rows, "--ignore-eos",
                                "--num-prompts", 4, "--ramp-up-strategy", "exponential", "--ramp-up-start-rps", 100,
                                "--ramp-up-end-rps", 1000)
            self.assertEqual((found["completed"], found["total_output_tokens"]), (4, 14), backend)

    def test_what_is_refused_is_counted_by_name(self):
        found = self.report("--num-prompts", 60, "--input-len", 8, "--output-len", 24, "--ignore-eos", "--num-warmups", 1)
        self.assertEqual(found["completed"] + found["failed"], 60)
        self.assertGreater(found["completed"], 0)
        self.assertEqual(found["error_counts"], {"429 overloaded": found["failed"]})
        self.assertGreater(found["failed"], 0)


class PrepareDataset(CliTest):
    def rows_of(self, *args):
        return [json.loads(line) for line in self.good("bench", "prepare-dataset", *args).stdout.splitlines()]

    def test_token_norm_dist_has_the_lengths_asked_for(self):
        args = ("token-norm-dist", "--num-requests", 400, "--input-mean", 50, "--input-stdev", 10, "--output-mean", 20)
        rows = self.rows_of(*args)
        self.assertEqual(rows, self.rows_of(*args))
        self.assertNotEqual(rows, self.rows_of(*args, "--random-seed", 1))
        self.assertEqual([row["task_id"] for row in rows], list(range(400)))
        self.assertEqual({row["output_tokens"] for row in rows}, {20})
        lengths = [len(row["input_ids"]) for row in rows]
        self.assertAlmostEqual(sum(lengths) / 400, 50, delta=2)  # 4 standard deviations of the mean
        self.assertGreater(len(set(lengths)), 20)

    def test_the_line_of_trtllm_bench_runs(self):
        lengths = ("token-norm-dist", "--num-requests=5", "--input-mean=9", "--output-mean=4", "--input-stdev=0", "--output-stdev=0")
        rows = self.rows_of(*lengths, "--random-seed", 7)
        file = self.folder / "rows.jsonl"
        self.good("bench", "--model", "NAME", "--model_path", EMBEDDED, "prepare-dataset", "--output", file, "--random-seed", 7, *lengths)
        self.assertEqual([json.loads(line) for line in file.read_text().splitlines()], rows)
        self.assertEqual(self.rows_of("--stdout", "--random-seed", 7, *lengths), rows)
        self.refused(("bench", "--model", "a", "prepare-dataset", *lengths, "--model", "b"), "b by --model and a by bench --model")
        self.refused(("bench", "prepare-dataset", "--stdout", *lengths, "--output", file), "more than once")
        self.refused(("bench", "prepare-dataset", "--random-seed", 1, "chat"), "--random-seed is an option of prepare-dataset")

    def test_conversations_go_through_the_template_up_to_their_last_answer(self):
        asked = [{"role": "user", "content": "Who are you?"}]
        rows = self.rows("chats.jsonl", [{"messages": [*asked, {"role": "assistant", "content": "A small model."}]}])
        self.path("cases.json", [{"messages": asked, "add_generation_prompt": True}])
        found = self.rows_of("chat", "--input", rows)
        text = json.loads(self.good("apply-template", "--input", self.path("cases.json")).stdout)[0]["text"]
        ids = json.loads(self.good("tokenize", "--input", self.path("texts.json", [text, "A small model."])).stdout)
        self.assertEqual([(row["input_ids"], row["output_tokens"]) for row in found], [(ids[0], len(ids[1]))])
        self.assertEqual(self.rows_of("chat", "--input", rows, "--output-len", 7)[0]["output_tokens"], 7)
        for bad, message in (({"messages": asked}, "--output-len"), ({"messages": []}, "messages"), ({}, "messages")):
            self.refused(("bench", "prepare-dataset", "chat", "--input", self.rows("bad.jsonl", [bad])), "bad.jsonl line 1.*" + message)


class Foreign(http.server.BaseHTTPRequestHandler):
    """The first completion streams without usage, the second breaks off, the third has an error, the fourth no end."""
    protocol_version = "HTTP/1.1"
    lock, number = threading.Lock(), 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "other"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "other" and self.headers["Authorization"] == "Bearer secret-key", body
        with Foreign.lock:
            Foreign.number += 1
            number = Foreign.number
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if number == 2:
            self.send_header("Content-Length", "1000")
        self.end_headers()
        self.close_connection = True
        for text in ("a", "b"):
            self.wfile.write(b": ping\r\n\r\ndata: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\r\n\r\n")
        if number == 3:
            self.wfile.write(b'data: {"error": {"message": "m", "type": "server_error", "code": 500}}\n\n')
        if number == 1:
            self.wfile.write(b"data: [DONE]\n\n")


class OtherServers(CliTest):
    @contextlib.contextmanager
    def foreign(self):
        with http.server.ThreadingHTTPServer(("localhost", 0), Foreign) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()

    def test_a_foreign_server_is_measured_and_its_faults_are_named(self):
        rows = self.rows("rows.jsonl", [{"task_id": 0, "input_ids": [1, 2, 3], "output_tokens": 2}])
        with self.foreign() as port:
            done = self.good("bench", "serve", "--base-url", f"http://localhost:{port}/", "--dataset-name", "custom",
                             "--dataset-path", rows, "--num-prompts", 4, "--max-concurrency", 1, "--json",
                             env={**os.environ, "OPENAI_API_KEY": "secret-key"})
        found = json.loads(done.stdout)
        self.assertEqual((found["completed"], found["total_input_tokens"], found["total_output_tokens"]), (1, 3, 2))
        self.assertEqual(found["error_counts"], {"connection ended early": 1, "server_error": 1, "the stream has no [DONE]": 1})

    def test_a_server_that_is_not_there_is_named(self):
        done = run(*bench(1, "--num-prompts", 1))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, "/v1/models: connection refused")

    def test_bad_options_are_refused_before_anything_is_sent(self):
        for args, found in ((("--goodput", "itl:3"), "--goodput has \"itl:3\""), (("--request-rate", 0), "--request-rate is 0"),
                            (("--base-url", "https://a"), "--base-url is https://a"), (("--backend", "x"), "--backend is"),
                            (("--ramp-up-strategy", "linear"), "--ramp-up-end-rps"), (("--metadata", "a"), "KEY=VALUE"),
                            (("--metric-percentiles", "101"), "--metric-percentiles is 101"),
                            (("--percentile-metrics", "x"), "--percentile-metrics has"), (("--save-detailed",), "--save-result"),
                            (("--dataset-name", "custom"), "--dataset-path")):
            self.refused(bench(1, *args), found)


if __name__ == "__main__":
    unittest.main()
