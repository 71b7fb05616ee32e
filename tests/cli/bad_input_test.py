"""Bad input of every kind is refused before work: exit code 2, a message that names file or flag, found and allowed."""
import json
import pathlib
import subprocess

from cli_support import EMBEDDED, PROGRAM, TINY, CliTest, read_safetensors, run, write_safetensors

SHARD = "model-00002-of-00004.safetensors"


class BadModel(CliTest):
    def logits(self, model, *flags):
        return ["logits", "-m", model, "--input-ids", self.ids, "--output", self.folder / "out.safetensors", *flags]

    def setUp(self):
        super().setUp()
        self.ids = self.path("ids.json", [[1, 2, 3]])

    def broken_shard(self, change):
        folder = self.model(TINY)
        header, data = read_safetensors(TINY / SHARD)
        name = sorted(k for k in header if k != "__metadata__")[0]
        header, data = change(header, data, name)
        write_safetensors(folder / SHARD, header, data)
        return folder, name

    def test_truncated_safetensors(self):
        folder, _ = self.broken_shard(lambda header, data, name: (header, data[:-10]))
        self.refused(self.logits(folder), SHARD)

    def test_overlapping_safetensors(self):
        def overlap(header, data, name):
            names = sorted((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"][0])
            first, second = header[names[0]], header[names[1]]
            size = second["data_offsets"][1] - second["data_offsets"][0]
            begin = first["data_offsets"][0] + 2
            second["data_offsets"] = [begin, begin + size]
            return header, data
        folder, _ = self.broken_shard(overlap)
        self.refused(self.logits(folder), SHARD, "overlap|gap|hole|offset")

    def test_misshapen_tensor(self):
        def reshape(header, data, name):
            header[name]["shape"] = [int(header[name]["shape"][0]), 1, *header[name]["shape"][1:]]
            return header, data
        folder, name = self.broken_shard(reshape)
        self.refused(self.logits(folder), SHARD, name.replace(".", r"\."), r"shape|\[", early=False)

    def test_offsets_that_contradict_the_shape(self):
        def grow(header, data, name):
            header[name]["shape"][0] += 1
            return header, data
        folder, name = self.broken_shard(grow)
        self.refused(self.logits(folder), SHARD, name.replace(".", r"\."))

    def test_missing_shard(self):
        folder = self.model(TINY)
        (folder / SHARD).unlink()
        self.refused(self.logits(folder), SHARD, "no such file|missing")

    def test_weights_that_are_not_finite(self):
        def poison(header, data, name):
            begin = header[name]["data_offsets"][0]
            return header, data[:begin] + b"\xc0\x7f" + data[begin + 2:]  # a bf16 NaN
        folder, name = self.broken_shard(poison)
        self.refused(self.logits(folder, "--check-weights"), name.replace(".", r"\."), "(?i)nan", early=False)

    def test_unknown_architecture(self):
        folder = self.model(TINY, architectures=["PelicanForCausalLM"])
        self.refused(self.logits(folder), "PelicanForCausalLM", "config.json", "Qwen3MoeForCausalLM")

    def test_config_field_out_of_range(self):
        folder = self.model(TINY, num_experts_per_tok=17)
        self.refused(self.logits(folder), "config.json", "num_experts_per_tok", "17")

    def test_gguf_and_pickle_weights(self):
        for name in ("model.gguf", "pytorch_model.bin"):
            with self.subTest(name):
                folder = self.folder / name.replace(".", "-")
                folder.mkdir()
                (folder / "config.json").write_bytes((TINY / "config.json").read_bytes())
                (folder / name).write_bytes(b"GGUF" + bytes(100))
                self.refused(self.logits(folder), name.replace(".", r"\."), "safetensors")

    def test_missing_folder(self):
        self.refused(self.logits(self.folder / "nothing"), "nothing: no such folder")

    def test_unsupported_tokenizer_part(self):
        folder = self.model(EMBEDDED)
        tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text())
        tokenizer["model"]["type"] = "Unigram"
        self.replace(folder / "tokenizer.json", tokenizer)
        self.refused(["generate", "-m", folder, "-p", "a"], "tokenizer.json", "Unigram", "BPE")
        self.refused(["tokenize", "-m", folder], "tokenizer.json", "Unigram", "BPE", stdin='["a"]')

    def test_weights_that_make_no_number(self):
        header, data = read_safetensors(TINY.parent / "tiny-llama" / "model.safetensors")
        begin, end = header["model.norm.weight"]["data_offsets"]
        data = data[:begin] + b"\xc0\x7f" * ((end - begin) // 2) + data[end:]  # NaN
        folder = self.model(TINY.parent / "tiny-llama")
        text = json.dumps(header).encode()
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        done = run(*self.logits(folder))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, "list 0, position 0: the logit of token 0 is -?nan")
        self.assertFalse((self.folder / "out.safetensors").exists())

    def test_slots_for_a_model_without_experts(self):
        folder = TINY.parent / "tiny-qwen3-dense"
        self.refused(self.logits(folder, "--num-slots", 16), "--num-slots is 16", "no MoE layer")
        self.refused(self.logits(folder, "--placement", "random:1"), "--placement is random:1", "no MoE layer")


class BadFlags(CliTest):
    def generate(self, *flags):
        return ["generate", "-p", "a", *flags]

    def test_values_out_of_range(self):
        for flag, value, *found in [
                ("--ep", "0", "--ep"), ("--ep", "many", "--ep", "many"), ("--threads", "0", "--threads"),
                ("--kernels", "sse", "--kernels", "sse", "avx512_bf16"),
                ("--max-seq-len", "0", "--max-seq-len"), ("--max-seq-len", "9999", "--max-seq-len is 9999", "2048"),
                ("--max-num-tokens", "0", "--max-num-tokens"), ("--max-batch-size", "-1", "--max-batch-size"),
                ("--kv-cache-memory", "1K", "--kv-cache-memory", "block"),
                ("--kv-cache-memory", "plenty", "--kv-cache-memory", "plenty", "64M"),
                ("--kv-cache-memory", ".", "--kv-cache-memory", r"'\.'|is \."),
                ("--kv-cache-memory", "1.5", "--kv-cache-memory is 1.5", "below 1"),
                ("--kv-cache-memory", "0.5.5", "--kv-cache-memory", "0.5.5"),
                ("--kv-cache-memory", "64T", "not enough memory", "KV cache 64.0 TiB", "--kv-cache-memory"),
                ("--deadline", "0", "--deadline"),
                ("--temperature", "-1", "--temperature is -1"), ("--temperature", "nan", "--temperature is nan"),
                ("--temperature", "warm", "--temperature", "warm"),
                ("--top-p", "0", "--top-p is 0", "at most 1"), ("--top-p", "1.5", "--top-p is 1.5"),
                ("--top-k", "-3", "--top-k is -3"), ("--min-p", "1", "--min-p is 1"),
                ("--repetition-penalty", "0", "--repetition-penalty is 0"),
                ("--presence-penalty", "3", "--presence-penalty is 3", "-2 to 2"),
                ("--frequency-penalty", "-3", "--frequency-penalty is -3"),
                ("--logprobs", "-5", "--logprobs is -5"), ("--logprobs", "8193", "--logprobs is 8193", "8192"),
                ("--top-k", "3000000000", "--top-k is 3000000000; allowed: 0 to 2147483647"),
                ("--top-k", "1e3", "--top-k is 1e3; allowed: 0 to 2147483647"),
                ("--ep", "1.5", "--ep is 1.5; allowed: 1 to 1024"),
                ("--max-seq-len", "9223372036854775808", "--max-seq-len is 9223372036854775808", "1 to 9223372036854775807"),
                ("--seed", "-1", "--seed is -1; allowed: 0 to 18446744073709551615"),
                ("--seed", "18446744073709551616", "--seed is 18446744073709551616; allowed: 0 to 18446744073709551615"),
                ("--seed", "0x10", "--seed is 0x10"), ("--max-tokens", "-1", "--max-tokens"),
                ("--max-tokens", "4000", "max_tokens is 4000", "2048"),
                ("--max-tokens", "9223372036854775807", "max_tokens is 9223372036854775807", "2048"),
                ("--attention-dp-balance", "true", "--attention-dp-balance has an effect with several groups of requests only"),
                ("--attention-dp-timeout-iters", "3", "--attention-dp-timeout-iters has an effect with --attention-dp-balance only"),
                ("--nonsense", "1", "--nonsense is no option of generate\n"),
                ("--temprature", "1", "--temprature is no option of generate; the nearest is --temperature")]:
            with self.subTest(flag=flag, value=value):
                self.refused(self.generate(f"{flag}={value}"), *found)

    def test_stages_that_cannot_be(self):
        for flags, *found in [
                (("--pp", "6"), "--pp is 6; the model has 5 layers"),
                (("--pp", "2", "--pp-partition", "3,3"), "--pp-partition is 3,3; it must be 2 numbers \\(--pp\\).*sum is 5"),
                (("--pp-partition", "2,3"), "--pp-partition is 2,3; it must be 1 numbers \\(--pp\\)"),
                (("--pp", "2", "--pp-partition", "4,x"), "--pp-partition.*x"),
                (("--pp", "2", "--pp-partition", "5,"), "--pp-partition is 5,; it ends in a comma"),
                (("--pp", "2", "--pp-micro-batches", "3"), "--pp-micro-batches is 3 and --pp is 2")]:
            with self.subTest(flags):
                self.refused(self.generate(*flags), *found)

    def test_empty_stop_text(self):
        self.refused(self.generate("--stop", "a", "--stop", ""), "--stop is empty", "one character")

    def test_kernels_that_this_machine_does_not_have(self):
        flags = pathlib.Path("/proc/cpuinfo").read_text()
        if "amx_bf16" in flags:
            self.skipTest("this machine has AMX")
        self.refused(self.generate("--kernels", "amx"), "amx", "AMX-BF16", "this machine")

    def test_contradictory_prompts(self):
        self.refused(["generate"], "--prompt", "neither")
        self.refused(self.generate("--prompt-file", "x"), "--prompt-file", "both")
        self.refused(["generate", "-p", ""], "--prompt|prompt", "empty")
        self.refused(["generate", "-f", self.folder / "nothing"], "nothing: no such file")
        self.refused(["generate", "-f", self.folder], "is a directory|not a regular file")

    def test_prompt_beyond_the_context(self):
        prompt = self.path("long.txt", "word " * 5000)
        self.refused(["generate", "-f", prompt], r"prompt has \d+ tokens", "2048")
        self.refused(self.generate("--max-seq-len", "4", "-n", "4"), "tokens", "at most 4", "max.seq.len")

    def test_prompt_beyond_the_cache(self):
        prompt = self.path("long.txt", "word " * 1000)
        self.refused(["generate", "-f", prompt, "--kv-cache-memory", "100K"], "KV for", "cache of a rank holds",
                     "kv-cache-memory")

    def test_value_of_the_generation_config_is_named_with_its_file(self):
        folder = self.model(EMBEDDED)
        self.replace(folder / "generation_config.json", {"min_p": 1.0})
        done = self.refused(self.generate("-m", folder), "generation_config.json", "min_p is 1")
        self.assertNotIn("--min", done.stderr)

    def test_no_subcommand(self):
        self.refused([], "subcommand")
        self.refused(["bench"], "subcommand")
        self.refused(["generat"], "generat")


class BadLayout(CliTest):
    def generate(self, *flags):
        return ["generate", "-p", "a", *flags]

    def yaml(self, name, num_slots, slots, layers=range(5), extra=""):
        lines = [f"  {layer}: {list(slots)}" for layer in layers]
        return self.path(name, f"num_slots: {num_slots}\n{extra}initial_global_assignments:\n" + "\n".join(lines) + "\n")

    def test_slots(self):
        self.refused(self.generate("--num-slots", "63"), "--num-slots", "63", "at least 64")
        self.refused(self.generate("--num-slots", "65", "--ep", "2"), "--num-slots", "65", "multiple of 2")
        self.refused(self.generate("--ep", "3"), "64", "multiple of 3")
        self.refused(self.generate("--num-slots", "0"), "--num-slots")

    def test_devices(self):
        allowed = r"allowed: cpu, cuda \(all GPUs\), or cuda:0,1"
        self.refused(self.generate("--device", "gpu"), '--device is "gpu"', allowed)
        self.refused(self.generate("--device", "cuda:0,0"), '--device is "cuda:0,0"', allowed)
        # numbers that no machine has; refused before the model, a file or a folder is looked at
        gpus = ["--device", "cuda:0,100000"]
        why = "built without CUDA; cpu is allowed|no CUDA device: .*; cpu is allowed|this machine has [0-9]+ GPUs?, numbered"
        nowhere = self.folder / "nowhere"
        for command in (["generate", "-p", "a"], ["chat"], ["logits", "--input-ids", nowhere, "--output", nowhere],
                        ["bench", "throughput", "--dataset", nowhere]):
            with self.subTest(command[0]):
                done = self.refused([*command, "-m", nowhere, *gpus], "--device is cuda:0,100000: ", why)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.refused(["demo", "--output", nowhere, *gpus], why)
        self.assertFalse(nowhere.exists())
        file = self.path("gpu.yaml", "device: cuda:0,100000\n")
        self.refused(self.generate("-c", file), "--device is cuda:0,100000: ", why)

    def test_commands_that_compute_with_the_processor_refuse_devices(self):
        nowhere = self.folder / "nowhere"
        for command in (["serve"], ["eval", "perplexity", "--input", nowhere]):
            with self.subTest(command[0]):
                self.refused([*command, "-m", nowhere, "--device", "cuda"],
                             "--device is cuda: this command computes with the processor; cpu is allowed")

    def test_unknown_words(self):
        self.refused(self.generate("--placement", "random:x"), "--placement is random:x", "contiguous")
        self.refused(self.generate("--placement", "scattered"), "--placement", "scattered", "contiguous", "random:SEED")
        self.refused(self.generate("--split", "fair"), "--split", "fair", "optimal, round_robin, first")
        self.refused(self.generate("--moe-max-num-tokens", "0"), "--moe-max-num-tokens")

    def test_expert_without_slot(self):
        path = self.yaml("a.yaml", 64, [0, *range(1, 5), 4, *range(6, 64)])
        self.refused(self.generate("--placement", path), "a.yaml", r"assignments\.0", "no slot for expert 5")
        path = self.yaml("b.yaml", 64, [*range(63), 62])
        self.refused(self.generate("--placement", path), "b.yaml", "63 experts", "64")

    def test_placement_of_another_model(self):
        path = self.yaml("layers.yaml", 64, range(64), layers=range(7))
        self.refused(self.generate("--placement", path), "layers.yaml", "layer")
        path = self.yaml("few.yaml", 64, range(64), layers=range(3))
        self.refused(self.generate("--placement", path), "few.yaml", "layer")
        path = self.yaml("experts.yaml", 80, [*range(80)])
        self.refused(self.generate("--placement", path), "experts.yaml", "64")

    def test_file_against_flags(self):
        path = self.yaml("a.yaml", 80, [*range(64), *range(16)])
        self.refused(self.generate("--placement", path, "--num-slots", "96"), "--num-slots is 96", "a.yaml", "80")
        self.refused(self.generate("--placement", path, "--ep", "3"), "a.yaml", "80", "3")
        path = self.yaml("b.yaml", 80, [*range(64), *range(16)], extra="pelicans: 1\n")
        self.refused(self.generate("--placement", path), "b.yaml", "pelicans", "num_slots")

    def test_balancer_that_there_is_not(self):
        self.refused(self.generate("--rebalance", "always", "--ep", "2"), '--rebalance is "always"', "off, repair, tensorrt_llm, random:SEED")
        self.refused(self.generate("--rebalance", "repair", "--ep", "2", "--split", "first"), "--split is first", "round_robin")
        for option, mode in (("--layer-updates-per-iter", "tensorrt_llm"), ("--max-fetched-slots-per-iter", "repair")):
            self.refused(self.generate("--rebalance", "random:1", "--ep", "2", option, "2"), option, f"--rebalance {mode} only", "random")
            self.refused(self.generate("--ep", "2", option, "2"), option, f"--rebalance {mode} only")


class BadRequests(CliTest):
    def test_ids_of_logits(self):
        out = self.folder / "out.safetensors"
        for content, *found in [
                ([[1, 2], [3, 320]], "list 1", "position 1", "320", "319"), ([[1], []], "list 1", "empty"),
                ([[-1]], "list 0", "position 0", "-1"), ([[1.5]], "position 0", "1.5"), ({"a": 1}, "list of lists"),
                ([1, 2], "element 0", "list of token ids"), ([[1] * 513], "list 0", "513", "512"),
                ("[[1, 2", "ids.json"), ([], "ids.json", "list")]:
            with self.subTest(str(content)[:40]):
                ids = self.path("ids.json", content)
                self.refused(["logits", "-m", TINY, "--input-ids", ids, "--output", out], "ids.json", *found)
        self.refused(["logits", "-m", TINY, "--output", out], "--input-ids")
        self.refused(["logits", "-m", TINY, "--input-ids", self.folder / "no", "--output", out], "no: no such file")

    def test_rows_of_a_dataset(self):
        good = {"task_id": 0, "input_ids": [1, 2], "output_tokens": 2}
        for row, *found in [
                ({**good, "input_ids": [1, 8192]}, "line 2|task_id 0", "8192", "8191"),
                ({**good, "input_ids": []}, "line 2", "input_ids"), ({**good, "input_ids": [-1]}, "line 2", "input_ids"),
                ({**good, "task_id": None}, "line 2", "task_id"), ({**good, "task_id": 1.5}, "line 2", "task_id"),
                ({"task_id": 1, "output_tokens": 3}, "line 2", "prompt"),
                ({"task_id": 1, "prompt": 7, "output_tokens": 3}, "line 2", "prompt"),
                ({"task_id": 1, "prompt": "a", "output_tokens": "3"}, "line 2", "output_tokens"),
                ({"task_id": 1, "prompt": "a", "output_tokens": 5000}, "line 2|task_id 1", "5000", "2048"),
                ({"task_id": 1, "prompt": "a"}, "line 2", "output_tokens"), ([1], "line 2")]:
            with self.subTest(str(row)):
                dataset = self.rows("rows.jsonl", [good, row])
                self.refused(["bench", "throughput", "--dataset", dataset, "--output", self.folder / "out"],
                             "rows.jsonl", *found)
        self.refused(["bench", "throughput", "--dataset", self.path("empty.jsonl", "\n")], "empty.jsonl", "no rows")
        self.refused(["bench", "throughput", "--dataset", self.path("bad.jsonl", "{")], "bad.jsonl line 1")
        self.refused(["bench", "throughput"], "--dataset")

    def test_prompts_need_a_tokenizer(self):
        dataset = self.rows("rows.jsonl", [{"task_id": 1, "prompt": "a", "output_tokens": 3}])
        self.refused(["bench", "throughput", "-m", TINY, "--dataset", dataset], "rows.jsonl", "tokenizer.json")
        self.refused(["generate", "-m", TINY, "-p", "a"], "tokenizer.json: no such file")
        self.refused(["chat", "-m", TINY], "tokenizer.json: no such file")

    def test_eos_id_out_of_range(self):
        dataset = self.rows("rows.jsonl", [{"task_id": 1, "input_ids": [1], "output_tokens": 3}])
        self.refused(["bench", "throughput", "--dataset", dataset, "--eos-id", "8192"], "--eos-id", "8192", "8191")
        self.refused(["bench", "throughput", "--dataset", dataset, "--eos-id", "1", "--ignore-eos"], "--eos-id",
                     "--ignore-eos")

    def test_unwritable_output(self):
        rows = self.rows("rows.jsonl", [{"task_id": 1, "input_ids": [1], "output_tokens": 3}])
        for flag in ("--output", "--report-json", "--report", "--iteration-log", "--trace"):
            with self.subTest(flag):
                self.refused(["bench", "throughput", "--dataset", rows, flag, self.folder / "no/out"], "no/out",
                             "cannot write")
                self.refused(["bench", "throughput", "--dataset", rows, flag, self.folder], "is a directory")
        ids = self.path("ids.json", [[1]])
        self.refused(["logits", "-m", TINY, "--input-ids", ids, "--output", self.folder / "no/out"], "no/out",
                     "cannot write")
        self.refused(["tokenize", "--output", self.folder / "no/out"], "no/out", "cannot write", stdin='["a"]')

    def test_texts_and_ids_of_tokenize(self):
        self.refused(["tokenize"], "standard input", "element 1", "7", "string", stdin='["a", 7]')
        self.refused(["tokenize"], "standard input", "list of strings", stdin='{"a": 1}')
        self.refused(["tokenize", "--decode"], "standard input", "element 0, position 1", "-1", "2147483647",
                     stdin="[[1, -1]]")
        self.refused(["tokenize", "--decode", "--add-special-tokens"], "--add-special-tokens", stdin="[]")
        self.refused(["tokenize", "--skip-special-tokens"], "--skip-special-tokens", stdin="[]")
        self.refused(["tokenize", "--decode"], "standard input", "element 0", stdin="[1]")
        self.refused(["tokenize"], "standard input", stdin="[")

    def test_full_standard_output_is_a_failure(self):
        if not pathlib.Path("/dev/full").exists():
            self.skipTest("no /dev/full")
        for args in (["generate", "-p", "a", "-n", "2"], ["inspect"], ["--version"]):
            with self.subTest(args[0]), open("/dev/full", "w") as full:
                done = subprocess.run([str(PROGRAM), *args], stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertRegex(done.stderr, "standard output")
