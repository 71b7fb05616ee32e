#!/usr/bin/env python3
"""`wideload serve disaggregated`: the answers of `serve`, files that are refused by name, and what is left in the end.
Usage: serve_disaggregated_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import concurrent.futures
import json
import pathlib
import re
import tempfile
import unittest

from cli_support import CliTest
from serve_support import Server

FILE = """
hostname: localhost
port: 0
backend: pytorch
max_seq_len: 1024
context_servers:
  num_instances: 2
  router: {type: load_balancing}
  tensor_parallel_size: 2
  max_num_tokens: 64
  cache_transceiver_config: {backend: UCX, kv_transfer_timeout_ms: 60000}
generation_servers:
  tensor_parallel_size: 2
  enable_attention_dp: true
  cache_transceiver_config: {backend: UCX}
"""
REQUESTS = [
    {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "logprobs": 2},
    {"prompt": "The history of the " * 40, "max_tokens": 20, "temperature": 0.9, "seed": 3, "logprobs": 1},
    {"prompt": "In the", "max_tokens": 9, "temperature": 0.7, "seed": 4, "n": 2, "echo": True, "logprobs": 1},
    {"prompt": "A list", "max_tokens": 1, "temperature": 0},
    {"prompt": "A list", "max_tokens": 30, "temperature": 0.8, "seed": 5, "stop": [" the"], "ignore_eos": True},
    {"prompt": "An object: ", "max_tokens": 40, "temperature": 0.8, "seed": 6, "guided_regex": "\\{[a-z]{3,9}\\}"},
]


def answers(server):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda fields: server.post("/v1/completions", **fields), REQUESTS))
    for status, body in found:
        assert status == 200, body
    return [(body["choices"], body["usage"]) for _, body in found]


class Disaggregated(unittest.TestCase):
    def test_answers_are_those_of_one_engine(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sides.yaml"
            path.write_text(FILE)
            one = Server("--max-seq-len", 1024)
            expected = answers(one)
            self.assertEqual(one.end(), 0)
            apart = Server("--config", path, words=("serve", "disaggregated"))
            self.assertRegex(apart.stderr(), "prompts are computed by 2 of 3 engines")
            self.assertEqual(answers(apart), expected)
            events = apart.events("/v1/completions", **REQUESTS[1])
            text = "".join(event["choices"][0]["text"] for event in events if event["choices"])
            self.assertEqual(text, expected[1][0][0]["text"])
            apart.wait_idle()
            self.assertEqual(apart.end(), 0, apart.stderr())


    def test_stages_and_shared_contexts_change_no_answer(self):
        one = Server("--max-seq-len", 1024)
        expected = answers(one)
        self.assertEqual(one.end(), 0)
        with tempfile.TemporaryDirectory() as folder:
            for i, (context, generation) in enumerate((("pipeline_parallel_size: 2", "context_parallel_size: 2"),
                                                       ("context_parallel_size: 2", "pipeline_parallel_size: 2"))):
                path = pathlib.Path(folder) / f"sides{i}.yaml"
                path.write_text(f"port: 0\nmax_seq_len: 1024\ncontext_servers: {{{context}, max_num_tokens: 64}}\n"
                                f"generation_servers: {{{generation}}}\n")
                apart = Server("--config", path, words=("serve", "disaggregated"))
                self.assertEqual(answers(apart), expected, path.read_text())
                apart.wait_idle()
                self.assertEqual(apart.end(), 0, apart.stderr())

    def test_several_engines_generate(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sides.yaml"
            path.write_text("port: 0\nmax_seq_len: 1024\ncontext_servers: {num_instances: 2}\n"
                            "generation_servers: {num_instances: 2, router: {type: load_balancing}}\n")
            one = Server("--max-seq-len", 1024)
            expected = answers(one)
            self.assertEqual(one.end(), 0)
            apart = Server("--config", path, words=("serve", "disaggregated"))
            self.assertRegex(apart.stderr(), "prompts are computed by 2 of 4 engines")
            self.assertEqual(answers(apart), expected)
            apart.wait_idle()
            apart.wait_until(lambda: apart.metric("handed_over_prompts_total") == 6, "a request is missing")
            text = apart.ask("GET", "/metrics")[2].decode()
            handed_over = re.findall(r'^wideload_generation_handed_over_prompts_total{.*generation="(\d)"} (\d+)$', text, re.M)
            self.assertEqual([server for server, _ in handed_over], ["0", "1"])
            self.assertTrue(all(int(count) > 0 for _, count in handed_over), handed_over)
            self.assertEqual(sum(int(count) for _, count in handed_over), 6)
            for name in ("iteration_seconds_total", "kv_cache_max_blocks", "eplb_balancedness"):
                self.assertEqual(len(re.findall(rf'^wideload_{name}{{model_name="[^"]+",generation="\d"}}', text, re.M)), 2, name)
            self.assertEqual(len(re.findall("^# TYPE wideload_iteration_seconds_total ", text, re.M)), 1)
            both = [json.loads(apart.ask("GET", f"/dashboard/data?generation={i}")[2]) for i in range(2)]
            self.assertEqual([data["generation_server"] for data in both], [0, 1])
            self.assertEqual([len(data["generation_servers"]["rows"]) for data in both], [2, 2])
            self.assertEqual(sum(data["iterations"] for data in both), apart.metric("iterations_total"))
            self.assertEqual(apart.ask("GET", "/dashboard/data?generation=2")[0], 404)
            self.assertEqual(apart.end(), 0, apart.stderr())

    def test_the_rest_of_a_known_prompt_is_not_handed_over(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sides.yaml"
            path.write_text("port: 0\nmax_seq_len: 1024\ncontext_servers: {}\ngeneration_servers: {router: {type: kv_cache_aware}}\n"
                            "conditional_disagg_config: {max_local_prefill_length: 64}\n")
            apart = Server("--config", path, words=("serve", "disaggregated"))
            found = [apart.post("/v1/completions", **REQUESTS[1])[1]["choices"] for _ in range(2)]
            self.assertEqual(found[0], found[1])
            self.assertEqual(apart.metric("handed_over_prompts_total"), 1)
            own = re.findall(r'^wideload_generation_own_prompts_total{.*generation="0"} (\d+)$', apart.ask("GET", "/metrics")[2].decode(), re.M)
            self.assertEqual(own, ["1"])
            self.assertEqual(apart.end(), 0, apart.stderr())


class Files(CliTest):
    def refused_file(self, text, *found):
        self.refused(["serve", "disaggregated", "--config", self.path("a.yaml", text)], *found)

    def test_what_is_wrong_or_not_supported_is_named(self):
        self.refused(["serve", "disaggregated"], "needs a file: --config FILE")
        self.refused(["serve", "--port", 1, "disaggregated"], "--port is an option of serve, not of serve disaggregated")
        self.refused_file("context_servers: {}\n", "generation_servers is missing")
        sides = "context_servers: {}\ngeneration_servers: {}\n"
        self.refused_file(sides + "conditional_disagg_config: {}\n", "needs generation_servers.router.type: kv_cache_aware")
        self.refused_file(sides + "max_retries: x\n", "a.yaml:3: max_retries is x")
        self.refused_file("context_servers: {urls: ['a:1']}\ngeneration_servers: {}\n", "servers of other launches")
        self.refused_file("context_servers: {max_batchsize: 1}\ngeneration_servers: {}\n",
                          'a.yaml:1: unknown key "max_batchsize"; the nearest known key is max_batch_size')
        self.refused_file("context_servers: {pipeline_parallel_size: 2, pp_partition: [1, 2, 3]}\ngeneration_servers: {}\n",
                          r"pp_partition is \[1, 2, 3\], 3 numbers, and pipeline_parallel_size is 2")
        self.refused_file("context_servers: {}\ngeneration_servers: {model: a}\n", 'model is "" of context_servers')


if __name__ == "__main__":
    unittest.main()
