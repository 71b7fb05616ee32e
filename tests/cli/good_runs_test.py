"""What the program answers when it is used as its help says."""
import json
import os
import pathlib
import re

from cli_support import EMBEDDED, STARTED, TINY, CliTest, field_value, read_safetensors, run

GREEDY = ("--temperature", "0")


def byte_tokenizer():
    """A tokenizer.json of the 256 bytes alone, each its own id."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"pre_tokenizer": byte_level, "decoder": byte_level, "model": {"type": "BPE", "vocab": letters, "merges": []}}
ITERATION = re.compile(
    r"iter = (\d+), global_rank = (\d+), rank = (\d+), currank_total_requests = (\d+)/(\d+), "
    r"elapsed_time = ([\d.]+)s, timestamp = (.+?), num_scheduled_requests: (\d+), "
    r"states = \{'num_ctx_requests': (\d+), 'num_ctx_tokens': (\d+), 'num_generation_tokens': (\d+)\}")


class Help(CliTest):
    def test_version(self):
        self.assertRegex(self.good("--version").stdout, r"^wideload \d+\.\d+\.\d+\n$")

    def test_help_of_every_subcommand(self):
        top = self.good("--help").stdout
        for command in ("generate", "chat", "logits", "tokenize", "inspect", "bench"):
            with self.subTest(command):
                self.assertIn(command, top)
                self.assertIn("--help", self.good(command, "--help").stdout)
        self.assertIn("--dataset", self.good("bench", "throughput", "--help").stdout)

    def commands(self, *group):
        """The words of every command of the program or of `group`, groups included."""
        listed = self.good(*group, "--help").stdout.partition("Subcommands:\n")[2]
        for name in re.findall(r"^  (\w+) ", listed, re.MULTILINE):
            yield from ((*group, name), *self.commands(*group, name))

    def test_every_option_of_every_command_has_both_spellings(self):
        commands = list(self.commands())
        self.assertIn(("eplb", "simulate"), commands)
        for command in commands:
            for names in re.findall(r"^  (-\S+)", self.good(*command, "--help").stdout, re.MULTILINE):
                dashed = [name for name in names.split(",") if "-" in name.lstrip("-")]
                with self.subTest(command=command, names=names):
                    self.assertLessEqual({"--" + name[2:].replace("-", "_") for name in dashed}, set(names.split(",")))


class Generate(CliTest):
    def json(self, *flags):
        done = self.good("generate", "--json", *flags)
        return json.loads(done.stdout)  # exactly one document: anything after it is an error

    def test_streams_the_text_to_stdout_and_the_rest_to_stderr(self):
        args = ("-p", "Once upon a time", "-n", "8", *GREEDY)
        done = self.good("generate", *args)
        document = self.json(*args)
        self.assertEqual(done.stdout, document["text"] + "\n")
        self.assertIn(STARTED, done.stderr)
        self.assertNotIn("\x1b", done.stderr)
        self.assertEqual(len(document["ids"]), 8)
        self.assertEqual(document["finish_reason"], "length")
        self.assertEqual(document["prompt_tokens"], len(json.loads(self.good("tokenize", stdin='["Once upon a time"]').stdout)[0]))

    def test_long_and_short_spellings_mean_the_same(self):
        short = self.good("generate", "-m", EMBEDDED, "-p", "int main", "-n", "6", "--top-k", "3", "--top-p", "0.9")
        long = self.good("generate", "--model", EMBEDDED, "--prompt", "int main", "--max_tokens", "6", "--top_k", "3",
                         "--top_p", "0.9", "--max_num_tokens", "2048", "--kv_cache_memory", "32M")
        self.assertEqual(short.stdout, long.stdout)

    def test_prompt_file_and_standard_input(self):
        text = "Die Katze\nschläft"
        expected = self.good("generate", "-p", text, "-n", "5", *GREEDY).stdout
        self.assertEqual(self.good("generate", "-f", self.path("p.txt", text), "-n", "5", *GREEDY).stdout, expected)
        self.assertEqual(self.good("generate", "-f", "-", "-n", "5", *GREEDY, stdin=text).stdout, expected)

    def test_seed_repeats_and_another_seed_differs(self):
        args = ("-p", "The", "-n", "24", "--temperature", "1", "--top-k", "0", "--top-p", "1", "--ignore-eos")
        first = self.json(*args, "--seed", "7")["ids"]
        self.assertEqual(self.json(*args, "--seed", "7", "--threads", "1")["ids"], first)
        self.assertNotEqual(self.json(*args, "--seed", "8")["ids"], first)

    def test_vanishing_temperature_is_greedy(self):
        args = ("-p", "The", "-n", "6", "--top-k", "0", "--top-p", "1")
        self.assertEqual(self.json(*args, "--temperature", "1e-310")["ids"], self.json(*args, *GREEDY)["ids"])

    def test_stop_ends_before_the_text(self):
        whole = self.json("-p", "Once upon a time", "-n", "24", "--ignore-eos", *GREEDY)["text"]
        stop = whole[10:14]
        document = self.json("-p", "Once upon a time", "-n", "24", "--ignore-eos", *GREEDY, "--stop", "never there",
                             "--stop", stop)
        self.assertEqual(document["text"], whole[:whole.index(stop)])
        self.assertEqual(document["finish_reason"], "stop")

    def test_end_of_sequence_ends_unless_ignored(self):
        model = self.model(EMBEDDED)
        first = self.json("-p", "Once", "-n", "12", "--ignore-eos", *GREEDY)["ids"]
        self.replace(model / "generation_config.json", {"eos_token_id": first[3]})
        document = self.json("-m", model, "-p", "Once", "-n", "12")
        self.assertEqual(document["ids"], first[:first.index(first[3]) + 1])
        self.assertEqual(document["finish_reason"], "stop")
        ignored = self.json("-m", model, "-p", "Once", "-n", "12", "--ignore-eos")
        self.assertEqual(ignored["ids"], first)
        self.assertEqual(ignored["finish_reason"], "length")

    def test_logprobs(self):
        document = self.json("-p", "Once", "-n", "4", "--logprobs", "3", *GREEDY)
        self.assertEqual(len(document["logprobs"]), 4)
        for token, entry in zip(document["ids"], document["logprobs"]):
            self.assertEqual(entry["id"], token)
            self.assertEqual(entry["top"][0]["id"], token)  # greedy: the most likely one
            self.assertEqual(len(entry["top"]), 3)
            values = [top["logprob"] for top in entry["top"]]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertLessEqual(entry["logprob"], 0)
            self.assertEqual(bytes(entry["bytes"]).decode(errors="replace"), entry["token"])
        plain = self.good("generate", "-p", "Once", "-n", "4", "--logprobs", "0", *GREEDY)
        self.assertEqual(plain.stdout, document["text"] + "\n")

    def test_special_tokens_are_text_only_where_asked(self):
        model = self.model(EMBEDDED)
        plain = self.json("-p", "Once", "-n", "6", "--ignore-eos", *GREEDY)
        tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text())
        word = next(text for text, token in tokenizer["model"]["vocab"].items() if token == plain["ids"][2])
        tokenizer["added_tokens"].append({"id": plain["ids"][2], "content": word, "special": True, "normalized": False})
        self.replace(model / "tokenizer.json", tokenizer)
        args = ("-m", model, "-p", "Once", "-n", "6", "--ignore-eos", *GREEDY)
        self.assertEqual(self.json(*args, "--show-special-tokens")["text"], plain["text"])
        rest = [token for token in plain["ids"] if token != plain["ids"][2]]
        texts = self.good("tokenize", "-m", model, "--decode", stdin=json.dumps([rest, plain["ids"]])).stdout
        self.assertEqual([self.json(*args)["text"], plain["text"]], json.loads(texts))

    def test_ids_without_a_token_give_no_text(self):
        model = self.model(TINY)  # 320 ids
        self.path("model/tokenizer.json", byte_tokenizer())
        args = ("-m", model, "-p", "A", "-n", "40", "--temperature", "3", "--logprobs", "320", "--ignore-eos")
        document = self.json(*args)
        self.assertGreater(max(document["ids"]), 255)
        self.assertEqual(document["text"], bytes(i for i in document["ids"] if i < 256).decode(errors="replace"))
        self.assertIn([], [entry["bytes"] for entry in document["logprobs"]])

    def test_a_second_begin_of_sequence_is_noticed(self):
        model = self.model(EMBEDDED)
        self.replace(model / "tokenizer_config.json", {"add_bos_token": True, "bos_token": "<|im_start|>"})
        self.assertEqual(self.json("-m", model, "-p", "Once", "-n", "1")["prompt_tokens"],
                         self.json("-p", "Once", "-n", "1")["prompt_tokens"] + 1)
        once = self.good("generate", "-m", model, "-p", "Once", "-n", "1")
        self.assertNotIn("it stands twice", once.stderr)
        twice = self.good("generate", "-m", model, "-p", "<|im_start|>Once", "-n", "1")
        self.assertIn("begins with <|im_start|>", twice.stderr)

    def test_fills_the_context_exactly(self):
        document = self.json("-p", "Once upon a time", "--max-seq-len", "20", "--ignore-eos", *GREEDY)
        self.assertEqual(document["prompt_tokens"] + len(document["ids"]), 20)

    def test_runs_from_anywhere(self):
        expected = self.good("generate", "-p", "Once", "-n", "4", *GREEDY).stdout
        self.assertEqual(self.good("generate", "-p", "Once", "-n", "4", *GREEDY, cwd=self.folder).stdout, expected)


class Chat(CliTest):
    def test_turns_through_standard_input(self):
        one = self.good("chat", "-n", "6", *GREEDY, stdin="Hello\n").stdout
        two = self.good("chat", "-n", "6", *GREEDY, stdin="Hello\nAnd you?\n").stdout
        self.assertTrue(two.startswith(one.rstrip("\n")), (one, two))
        self.assertGreater(len(two), len(one))
        self.assertNotIn("<|im_", two)

    def test_ends_at_an_empty_line(self):
        self.assertEqual(self.good("chat", "-n", "6", *GREEDY, stdin="Hello\n\nAnd you?\n").stdout,
                         self.good("chat", "-n", "6", *GREEDY, stdin="Hello\n").stdout)


class Logits(CliTest):
    def logits(self, model, ids, *flags):
        out = self.folder / "out.safetensors"
        self.good("logits", "-m", model, "--input-ids", self.path("ids.json", ids), "--output", out, *flags)
        return out.read_bytes()

    def test_names_shapes_and_both_spellings_of_the_config(self):
        ids = [[1, 2, 3, 4, 5], [7], [319] * 40]
        first = self.logits(TINY, ids)
        header, data = read_safetensors(self.folder / "out.safetensors")
        self.assertEqual({name: (t["dtype"], t["shape"]) for name, t in header.items() if name != "__metadata__"},
                         {"logits.0": ("F32", [5, 320]), "logits.1": ("F32", [1, 320]), "logits.2": ("F32", [40, 320])})
        model = self.model(TINY)
        (model / "config.json").unlink()
        (model / "config.json").symlink_to(TINY / "config.transformers5.json")
        self.assertEqual(self.logits(model, ids), first)

    def test_same_bytes_in_every_layout(self):
        ids = [list(range(i, i + 9 + i)) for i in range(1, 12)]
        first = self.logits(TINY, ids)
        for flags in (("--ep", "4"), ("--ep", "2", "--num-slots", "24", "--placement", "random:5"),
                      ("--ep", "8", "--moe-max-num-tokens", "1", "--max-num-tokens", "3"),
                      ("--threads", "1", "--max-batch-size", "1"), ("--kv-cache-memory", "100K", "--max-seq-len", "64")):
            with self.subTest(flags):
                self.assertEqual(self.logits(TINY, ids, *flags), first)

    def test_dense_models_run_on_several_ranks(self):
        model = TINY.parent / "tiny-llama"
        ids = [list(range(i, i + 9 + i)) for i in range(1, 6)]
        self.assertEqual(self.logits(model, ids, "--ep", "3"), self.logits(model, ids))


class SharedCases(CliTest):
    CASES = pathlib.Path(os.environ.get("WIDELOAD_SHARED", TINY.parents[2] / "../shared")) / "cases/model"

    def setUp(self):
        super().setUp()
        if not self.CASES.is_dir():
            self.skipTest(f"{self.CASES} is not there")

    def test_the_eos_token_of_tokenizer_config_ends_an_answer(self):
        done = self.good("chat", "-m", self.CASES / "eos-tokenizer-config", stdin="Hello\n")
        self.assertLess(len(done.stdout), 100)

    def test_inspect_answers_for_what_it_cannot_run(self):
        for name, reason in (("infinity", "NemotronHForCausalLM"), ("f8-e8m0", "mxfp8")):
            with self.subTest(name):
                done = run("inspect", self.CASES / name, "--json")
                self.assertEqual(done.returncode, 2)
                document = json.loads(done.stdout)
                self.assertTrue(any(reason in text for text in document["unsupported"]))
                self.assertGreater(document["total_bytes"], 0)

    def test_yarn_stretches_the_context(self):
        self.good("generate", "-m", self.CASES / "yarn-context", "-p", "A" * 500, "-n", "1", "--max-seq-len", "1024")


class Tokenize(CliTest):
    TEXTS = ["Hello, world!\n", "", "Grüße 世界 🙂\t x", "<|im_start|>user\nhi<|im_end|>", "a" * 300, "\u0000\u200d"]

    def test_round_trip_through_pipes(self):
        ids = self.good("tokenize", stdin=json.dumps(self.TEXTS)).stdout
        texts = self.good("tokenize", "--decode", "--input", "-", "--output", "-", stdin=ids).stdout
        self.assertEqual(json.loads(texts), self.TEXTS)
        self.assertEqual(len(json.loads(ids)[1]), 0)

    def test_files_and_a_folder_with_nothing_but_the_tokenizer(self):
        model = self.folder / "only"
        model.mkdir()
        (model / "tokenizer.json").symlink_to(EMBEDDED / "tokenizer.json")
        texts, out = self.path("texts.json", self.TEXTS), self.folder / "ids.json"
        done = self.good("tokenize", "-m", model, "-i", texts, "-o", out)
        self.assertEqual(done.stdout, "")
        self.assertEqual(out.read_text(), self.good("tokenize", stdin=json.dumps(self.TEXTS)).stdout)


class Inspect(CliTest):
    def test_text(self):
        text = self.good("inspect", EMBEDDED).stdout
        for part in ("Qwen3MoeForCausalLM", "64", "2048", "can be run"):
            self.assertIn(part, text)
        self.assertEqual(self.good("inspect").stdout, text)

    def test_json_is_one_document(self):
        document = json.loads(self.good("inspect", TINY, "--json").stdout)
        self.assertEqual(document["config"]["num_experts"], 16)
        self.assertEqual(document["unsupported"], [])
        sizes = [(TINY / f"model-0000{i}-of-00004.safetensors").stat().st_size for i in range(1, 5)]
        self.assertLess(document["total_bytes"], sum(sizes))
        self.assertEqual(sum(part["bytes"] for part in document["parts"].values()), document["total_bytes"])

    def test_says_what_is_not_supported(self):
        model = self.model(TINY, architectures=["PelicanForCausalLM"])
        done = run("inspect", model, "--json")
        self.assertEqual(done.returncode, 2)
        document = json.loads(done.stdout)
        self.assertTrue(any("PelicanForCausalLM" in reason for reason in document["unsupported"]))


class Bench(CliTest):
    def setUp(self):
        super().setUp()
        rows = []
        for file in sorted((EMBEDDED / "prompts").iterdir())[:6]:
            row = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
            rows.append({"task_id": file.stem, "prompt": row["prompt"][:120], "output_tokens": 5 + len(rows), "more": 1})
        rows.append({"task_id": 7, "input_ids": [5, 6, 7], "prompt": "not used", "output_tokens": 1})
        self.requests = rows
        self.dataset = self.rows("rows.jsonl", rows)

    def bench(self, *flags):
        out = self.folder / "out.jsonl"
        self.good("bench", "throughput", "--dataset", self.dataset, "--output", out, *flags)
        return out.read_bytes()

    def test_output_report_and_iteration_log_agree(self):
        report_path, log_path, page_path = self.folder / "report.json", self.folder / "iterations.log", self.folder / "page.html"
        lines = self.bench("--report-json", report_path, "--iteration-log", log_path, "--report", page_path, "--ep", "2",
                           "--concurrency", "3", "--warmup", "2", *GREEDY).decode().splitlines()
        outputs = [json.loads(line) for line in lines]
        self.assertEqual([o["task_id"] for o in outputs], [r["task_id"] for r in self.requests])
        self.assertEqual([len(o["ids"]) for o in outputs], [r["output_tokens"] for r in self.requests])
        texts = json.loads(self.good("tokenize", "--decode", stdin=json.dumps([o["ids"] for o in outputs])).stdout)
        self.assertEqual([o["text"] for o in outputs], texts)

        prompts = json.loads(self.good("tokenize", stdin=json.dumps([r["prompt"] for r in self.requests[:-1]])).stdout)
        prompt_tokens = sum(map(len, prompts)) + 3
        output_tokens = sum(r["output_tokens"] for r in self.requests)
        report = json.loads(report_path.read_text())
        self.check_report(report, prompt_tokens / 7, output_tokens / 7)
        log = log_path.read_text().splitlines()
        for line in log:
            self.assertRegex(line, ITERATION)
        self.assertEqual(sum(field_value(line, "num_ctx_tokens") for line in log), prompt_tokens)
        self.assertEqual(sum(field_value(line, "num_generation_tokens") for line in log), output_tokens - 7)
        page = page_path.read_text(encoding="utf-8")
        self.assertIn(f"<dd>{prompt_tokens}, {output_tokens - 7}</dd>", page)
        self.assertIn("7 of 7 requests in", page)
        imbalance = report["exchange"]["imbalance_of_computed_rows"]
        self.assertIn(f"<dd>{imbalance:.3f}</dd>", page)

    def test_iterations_are_logged_where_that_is_asked_for(self):
        made = self.good("generate", "-p", "Once", "--print-iter-log", "--ep", "2", "-n", "5", *GREEDY)
        lines = [line.split("[info] ")[1] for line in made.stderr.splitlines() if "iter = " in line]
        self.assertEqual(len(lines), 10)  # a line of each rank
        for line in lines:
            self.assertRegex(line, ITERATION)
        self.assertEqual(sum(field_value(line, "num_generation_tokens") for line in lines), 4)

    def check_report(self, report, input_length, output_length):
        keys = {
            "engine": "model model_path version backend dtype kv_cache_dtype quantization",
            "machine": "", "decoding_stats": None, "dataset": "",
            "world_info": "tp_size pp_size ep_size world_size max_batch_size max_num_tokens scheduling_policy "
                          "kv_cache_percentage issue_rate",
            "request_info": "num_requests avg_num_concurrent_requests avg_input_length avg_output_length",
            "performance": "total_latency_ms avg_request_latency_ms request_throughput_req_s "
                           "system_output_throughput_tok_s system_total_throughput_tok_s "
                           "output_throughput_per_user_tok_s output_throughput_per_gpu_tok_s "
                           "request_latency_percentiles_ms",
            "streaming_metrics": "token_output_speed_tok_s avg_ttft_ms avg_tpot_ms tpot_percentiles ttft_percentiles "
                                 "gen_tps_percentiles"}
        for part, names in keys.items():
            self.assertIn(part, report)
            for name in (names or "").split():
                self.assertIn(name, report[part], part)
        info, performance = report["request_info"], report["performance"]
        self.assertEqual(info["num_requests"], 7)
        self.assertAlmostEqual(info["avg_input_length"], input_length)
        self.assertAlmostEqual(info["avg_output_length"], output_length)
        self.assertLessEqual(info["avg_num_concurrent_requests"], 3)
        self.assertEqual(report["world_info"]["ep_size"], 2)
        seconds = performance["total_latency_ms"] / 1e3
        self.assertAlmostEqual(performance["request_throughput_req_s"] * seconds, 7)
        self.assertAlmostEqual(performance["system_output_throughput_tok_s"] * seconds, 7 * output_length)
        latency = performance["request_latency_percentiles_ms"]
        self.assertTrue(latency["minimum"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["maximum"])

    def test_same_bytes_in_every_layout(self):
        sampled = ("--temperature", "0.8", "--top-p", "0.95", "--seed", "3")
        first = self.bench(*sampled)
        yaml = self.path("plan.yaml", "num_slots: 80\ninitial_global_assignments:\n" + "".join(
            f"  {layer}: {[*range(64), *range(16)]}\n" for layer in range(5)))
        for flags in (("--ep", "2", "--split", "first"), ("--ep", "4", "--num-slots", "128", "--placement", "random:1"),
                      ("--ep", "8", "--moe-max-num-tokens", "8", "--max-num-tokens", "3"),
                      ("--ep", "8", "--placement", yaml, "--split", "round_robin", "--threads", "1"),
                      ("--ep", "2", "--num-slots", "96", "--concurrency", "2", "--kv-cache-memory", "400K"),
                      ("--ep", "4", "--num-slots", "72", "--rebalance", "random:1", "--slot-storage", "copy")):
            with self.subTest(flags):
                self.assertEqual(self.bench(*sampled, *flags), first)

    def test_says_which_balancer_is_active_and_what_it_did(self):
        plan = "initial_global_assignments:\n" + "".join(f"  {layer}: {[*range(64), *range(16)]}\n" for layer in range(5))
        online = self.path("online.yaml", "num_slots: 80\nlayer_updates_per_iter: 1\n" + plan)
        off = self.path("off.yaml", "num_slots: 0\n")
        for flags, says, changes in (
                (("--ep", "4", "--placement", online), "online balancer: repair, up to 16 slots", True),
                (("--ep", "4", "--placement", online, "--rebalance", "off"), "online balancer: off", False),
                (("--ep", "4", "--placement", online, "--rebalance", "tensorrt_llm"), "tensorrt_llm, 1 layers at a time", True),
                (("--ep", "4", "--placement", off, "--rebalance", "repair"), "online balancer: off .num_slots is 0 in", False),
                (("--ep", "1", "--rebalance", "repair"), "online balancer: none .one rank", False)):
            with self.subTest(flags):
                report = self.folder / "report.json"
                done = self.good("bench", "throughput", "--dataset", self.dataset, "--report-json", report, *flags)
                self.assertRegex(done.stderr, says)
                balancer = json.loads(report.read_text()).get("online_balancer", {"changes": 0})
                self.assertEqual(balancer["changes"] > 0, changes)

    def test_eos_id_ends_a_request(self):
        whole = [json.loads(line)["ids"] for line in self.bench(*GREEDY).splitlines()]
        end = whole[0][2]
        cut = [json.loads(line)["ids"] for line in self.bench(*GREEDY, "--eos-id", end).splitlines()]
        for before, after in zip(whole, cut):
            self.assertEqual(after, before[:before.index(end) + 1] if end in before else before)

    def test_num_requests_and_max_tokens(self):
        lines = self.bench("--num-requests", "2", "--max-tokens", "3", *GREEDY).splitlines()
        self.assertEqual([len(json.loads(line)["ids"]) for line in lines], [3, 3])

    def test_reads_standard_input_and_writes_standard_output(self):
        done = self.good("bench", "throughput", "--dataset", "-", "--output", "-", *GREEDY,
                         stdin=self.dataset.read_text(encoding="utf-8"))
        self.assertEqual(done.stdout.encode(), self.bench(*GREEDY))

    def test_devices_are_written_to_not_replaced(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.good("bench", "throughput", "--dataset", self.dataset, "--output", fifo, "--num-requests", "1", *GREEDY)
        self.assertTrue(fifo.is_fifo())
        self.assertEqual(json.loads(os.read(reader, 1 << 16))["task_id"], self.requests[0]["task_id"])
