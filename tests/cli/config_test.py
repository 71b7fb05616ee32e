#!/usr/bin/env python3
"""Configuration files: what their keys do, who wins, what is refused. Usage: config_test.py [unittest options]."""
import json
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import EMBEDDED, PROGRAM, SOURCE, CliTest  # noqa: E402

COLLECTION = pathlib.Path(os.environ.get("WIDELOAD_SHARED", SOURCE / "../shared")) / "data/trtllm-worker-configs.yaml"


class ConfigFiles(CliTest):
    def shown(self, *args):
        """{option: (value, source)} of `config show`"""
        lines = [line.split("  ") for line in self.good("config", "show", *args).stdout.splitlines()]
        fields = [[field.strip() for field in line if field.strip()] for line in lines]
        return {line[0]: (line[1], line[-1]) for line in fields}

    def generate(self, *args):
        return ["generate", "-m", EMBEDDED, "-p", "Once", "-n", "6", "--json", *args]

    def test_the_command_line_goes_before_the_file_and_the_file_before_the_model(self):
        file = self.path("a.yaml", "max_batch_size: 32\nmax_num_tokens: 99\ntemperature: 0.5\nignore_eos: true\n")
        values = self.shown("-c", file, "--max-num-tokens", "512", "--ignore-eos=false")
        self.assertEqual(values["--max-batch-size"], ("32", f"{file}:1: max_batch_size"))
        self.assertEqual(values["--max-num-tokens"], ("512", "command line"))
        self.assertEqual(values["--temperature"], ("0.5", f"{file}:3: temperature"))
        self.assertEqual(values["--ignore-eos"], ("false", "command line"))
        self.assertEqual(values["--seed"], ("0", "default"))
        self.assertEqual(values["--enable-prefix-caching"], ("true", "default"))
        for switch in ("--no-enable-prefix-caching", "--no_enable_block_reuse", "--enable-prefix-caching=false"):
            self.assertEqual(self.shown(switch)["--enable-prefix-caching"], ("false", "command line"))
        reuse = self.path("b.yaml", "kv_cache_config: {enable_block_reuse: false}\n")
        self.assertEqual(self.shown("-c", reuse)["--enable-prefix-caching"][0], "false")
        model = json.loads((EMBEDDED / "generation_config.json").read_text())
        self.assertEqual(self.shown()["--top-k"], (str(model["top_k"]), f"{EMBEDDED}/generation_config.json"))

    def test_a_run_does_what_the_file_says(self):
        file = self.path("a.yaml", "moe_expert_parallel_size: 2\nmoe_config: {load_balancer: {num_slots: 72}}\n"
                                   "top_k: 1\nseed: 5\nmax_tokens: 3\n")
        done = self.good("generate", "-m", EMBEDDED, "-p", "Once", "--json", "--config", file)
        self.assertIn("2 ranks", done.stderr)
        self.assertIn("72 slots", done.stderr)
        self.assertEqual(len(json.loads(done.stdout)["ids"]), 3)
        self.assertIn("3 ranks", self.good(*self.generate("-c", file, "--ep", "3")).stderr)

    def test_check_tells_of_both_sides_of_a_file_for_prefill_and_decode_apart(self):
        file = self.path("sides.yaml", "hostname: localhost\nmax_seq_len: 64\ncontext_servers: {max_num_tokens: 512}\n"
                                       "generation_servers: {num_instances: 1, max_batch_size: 8}\n")
        sides = json.loads(self.good("config", "check", file, "--json").stdout)
        found = {side["side"]: [key["key"] for key in side["keys"]] for side in sides}
        self.assertEqual(found, {"context_servers": ["max_num_tokens", "max_seq_len"],
                                 "generation_servers": ["max_batch_size", "max_seq_len"]})
        self.assertIn("sides.yaml: generation_servers", self.good("config", "check", file).stdout)
        one = self.path("one.yaml", "context_servers: {num_instances: 1}\n")
        self.refused(["config", "check", one], "one.yaml: generation_servers is missing")

    def test_what_a_run_refuses_names_file_line_and_key(self):
        for text, *found in [
                ("max_batch_size: 0\n", r"a.yaml:1: max_batch_size is 0; allowed: 1 to 65536"),
                ("\nmax_bath_size: 3\n", r'a.yaml:2: unknown key "max_bath_size"; the nearest known key is max_batch_size'),
                ("tp_size: 3\n", r'unknown key "tp_size"; the nearest known key is tensor_parallel_size'),
                ("pipeline_parallel_size: 2\npp_partition: [1, 1, 1]\n", r"a.yaml:2: pp_partition is .*pipeline_parallel_size is 2"),
                ("cuda_graph_config: {enable_pading: true}\n", "cuda_graph_config.enable_padding"),
                ("max_batch_size: 3\nmax_batch_size: 4\n", 'a.yaml:2: duplicate key "max_batch_size".*line 1'),
                ("tensor_parallel_size: 8\nmoe_expert_parallel_size: 3\n", "tensor_parallel_size is 8, moe_expert_parallel_size is 3"),
                ("kv_cache_config: {dtype: fp8}\n", "kv_cache_config.dtype is fp8", "--allow-unsupported"),
                ("max_batch_size: [\n", "a.yaml:.*not YAML")]:
            with self.subTest(text):
                self.refused(self.generate("-c", self.path("a.yaml", text)), *found)
        self.refused(self.generate("-c", self.folder / "none.yaml"), "none.yaml: no such file")
        self.refused(self.generate("--tp", "2", "--tp_size", "4"), "--tp is given 2 times; allowed: once")

    def test_what_is_not_supported_is_told_when_it_is_allowed(self):
        file = self.path("a.yaml", "kv_cache_config: {dtype: fp8}\nstream_interval: 4\nmoe_backend: WIDEEP\n")
        done = self.good(*self.generate("-c", file, "--allow-unsupported"))
        self.assertRegex(done.stderr, r"a.yaml:1: kv_cache_config.dtype is not supported yet; instead: keys and values")
        self.assertRegex(done.stderr, r"of no effect here.*: stream_interval, moe_backend")
        self.assertRegex(done.stderr, "moe_backend is an old spelling of moe_config.backend")

    def test_check_tells_the_class_of_every_key_and_looks_at_all_files(self):
        good = self.path("good.yaml", "max_seq_len: 99\nstream_interval: 20\nmoe_cluster_parallel_size: 2\nmoe_max_num_tokens: 64\n")
        keys = json.loads(self.good("config", "check", "--json", good).stdout)[0]["keys"]
        self.assertEqual([key["class"] for key in keys], ["effective", "no effect", "not supported yet", "effective"])
        self.assertEqual(keys[3]["key_today"], "moe_config.max_num_tokens")
        self.assertEqual(keys[3]["option"], "--moe-max-num-tokens")
        bad = self.path("bad.yaml", "pelicans: 1\n")
        done = subprocess.run([PROGRAM, "config", "check", bad, good], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn('bad.yaml:1: unknown key "pelicans"', done.stderr)
        self.assertIn("good.yaml\n", done.stdout)

    def test_schema_has_every_option_that_a_file_can_set(self):
        schema = json.loads(self.good("config", "schema").stdout)
        self.assertFalse(schema["additionalProperties"])
        properties = schema["properties"]
        self.assertEqual(properties["max_batch_size"]["maximum"], 65536)
        self.assertIn(None, properties["split"]["enum"])
        balancer = properties["moe_config"]["properties"]["load_balancer"]["anyOf"][1]["properties"]
        self.assertEqual(balancer["num_slots"]["type"], ["integer", "null"])
        self.assertNotIn("config", properties)

    def test_real_configurations_pass_and_the_table_in_docs_is_theirs(self):
        if not COLLECTION.exists():
            self.skipTest(f"{COLLECTION} is not there")
        done = subprocess.run([sys.executable, SOURCE / "tools/config_keys.py", PROGRAM, COLLECTION], capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("350 distinct configurations", done.stdout)
        self.assertEqual((SOURCE / "docs/configuration-keys.md").read_text(), done.stdout)


if __name__ == "__main__":
    unittest.main()
