#!/usr/bin/env python3
"""Large and hostile input costs the program no more time and memory than its size explains."""
import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import random_checkpoint  # noqa: E402
import wide_model  # noqa: E402
from cli_support import EMBEDDED, PROGRAM, SOURCE, TINY, CliTest, read_safetensors, run, write_safetensors  # noqa: E402

# What costs time in proportion to the input takes a second or two of these; what is quadratic takes hours.
MAX_CPU_S = 20
MAX_ADDRESS_BYTES = 4 << 30  # what would take the whole machine fails instead
PROGRAM_BYTES = 16 << 20  # code, libraries and heap of a run without input


class Limits(CliTest):
    def measured(self, *args, code=0, address_bytes=MAX_ADDRESS_BYTES):
        """Runs the program, which must end with `code`, with its CPU time and memory limited; (stdout, stderr, peak memory in bytes)."""
        def limit():
            resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
            resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
        with open(self.path("stdout"), "wb") as out, open(self.path("stderr"), "wb") as err:
            process = subprocess.Popen([str(PROGRAM), *map(str, args)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       preexec_fn=limit)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        stderr = self.path("stderr").read_text()
        self.assertEqual(process.returncode, code, stderr)
        return self.path("stdout").read_text(), stderr, usage.ru_maxrss * 1024


class ManyTensors(Limits):
    def inspect(self, **shape):
        text_bytes = wide_model.make(self.folder / "m", num_tensors=200_000, **shape)
        stdout, _, peak_bytes = self.measured("inspect", self.folder / "m", code=2)  # its layers lack tensors
        self.assertRegex(stdout, r"experts +200000 ")
        self.assertLess(peak_bytes, PROGRAM_BYTES + 4 * text_bytes)

    def test_index_of_200000_names(self):
        self.inspect(num_shards=61)

    def test_header_of_200000_tensors(self):
        self.inspect(num_shards=1)


class LoadedWeights(Limits):
    def test_checkpoints_of_published_shapes_are_run(self):
        for shape in ("qwen3-30b-a3b", "gpt-oss-120b"):
            model, logits = self.folder / shape, self.folder / "logits"
            subprocess.run([sys.executable, SOURCE / "tools/shaped_checkpoint.py", shape, model, "--layers", "1", "--experts", "8",
                            "--vocab-size", "64"], check=True, stdout=subprocess.DEVNULL)
            self.good("logits", "-m", model, "--input-ids", self.path("ids.json", "[[1, 2, 3]]"), "--output", logits,
                      "--max-seq-len", "64", "--kv-cache-memory", "1M")
            _, data = read_safetensors(logits)
            self.assertTrue(all(abs(value) < 100 for value in struct.unpack(f"<{len(data) // 4}f", data)), shape)

    def test_pages_of_the_files_are_given_back(self):
        bytes_of_weights = random_checkpoint.make(self.folder / "m", mib=300)
        ids = self.path("ids.json", "[[1, 2, 3]]")
        _, _, peak_bytes = self.measured("logits", "-m", self.folder / "m", "--input-ids", ids, "--output", self.folder / "o",
                                         "--max-num-tokens", 16, "--max-batch-size", 1, "--max-seq-len", 64)
        # 64 MiB of mapped pages, the largest tensor and buffers; without giving back it would be twice the weights
        self.assertLess(peak_bytes, bytes_of_weights + PROGRAM_BYTES + (150 << 20))


class ManyObjects(Limits):
    def test_json_of_many_small_objects(self):
        text = self.path("objects.json", "[" + ",".join(["{}"] * 400_000) + "]")
        _, stderr, _ = self.measured("tokenize", "-i", text, code=2)
        self.assertIn("element 0 is {}; it must be a string", stderr)


class Sizes(Limits):
    """What is too large for its meaning or the memory is refused before work."""

    def refused_at_once(self, args, *found):
        _, stderr, peak_bytes = self.measured(*args, code=2)
        for regex in found:
            self.assertRegex(stderr, regex)
        self.assertLess(peak_bytes, 200 << 20)

    def test_slots(self):
        for slots in ("30000000", "1000000000"):
            self.refused_at_once(["generate", "-p", "a", "--num-slots", slots], "--num-slots", "at most 64 are allowed")

    def test_memory_that_no_machine_has(self):
        for flags in (["--kv-cache-memory", "900000T", "--ep", "64"], ["--kv-cache-memory", "99999999G"]):
            self.refused_at_once(["generate", "-p", "a", *flags], "kv-cache-memory")

    def test_a_context_of_millions_makes_no_table_of_them(self):
        model = self.model(EMBEDDED, max_position_embeddings=1 << 24)
        # the KV cache reserves addresses that it never touches
        _, _, peak_bytes = self.measured("generate", "-m", model, "-p", "a", "-n", "2", "--threads", "1",
                                         address_bytes=resource.RLIM_INFINITY)
        self.assertLess(peak_bytes, 400 << 20)

    def test_streams_are_read_to_their_limit(self):
        zero = self.folder / "zero.csv"
        zero.symlink_to("/dev/zero")
        self.refused_at_once(["generate", "-f", "/dev/zero"], "/dev/zero", "larger than the 64.0 MiB")
        _, stderr, peak_bytes = self.measured("eplb", "plan", "--loads", zero, "--ep_size", 2, "--output_path",
                                              self.folder / "out", code=2)
        self.assertIn("larger than", stderr)
        self.assertLess(peak_bytes, 1100 << 20)

    def test_a_prompt_that_no_context_holds_is_not_tokenised(self):
        prompt = self.path("prompt.txt", "a b" * 10_000_000)
        self.refused_at_once(["generate", "-f", prompt], "prompt.txt", "bytes")

    def test_log_probabilities_of_the_whole_vocabulary(self):
        stdout, _, peak_bytes = self.measured("generate", "-p", "a", "-n", "100", "--ignore-eos", "--json", "--logprobs", "8192",
                                              "--threads", "1")
        self.assertEqual(len(json.loads(stdout)["logprobs"][99]["top"]), 8192)
        self.assertLess(peak_bytes, 300 << 20)

    def test_logits_are_not_kept(self):
        ids = self.path("ids.json", [[7] * 500] * 40)  # 8192 x 4 bytes for each of 20000
        self.measured("logits", "--input-ids", ids, "--output", self.folder / "out", "--max-num-tokens", "128", "--threads", "1",
                      "--max-batch-size", "1")
        header, data = read_safetensors(self.folder / "out")
        self.assertEqual(header["logits.39"]["shape"], [500, 8192])
        self.assertEqual(len(data), 20_000 * 8192 * 4)


class Requests(CliTest):
    """An error of one request stays with it."""

    def nan_model(self):
        """The tiny model; the embedding of id 9 is NaN, which makes its logits so."""
        folder = self.model(TINY)
        shard = "model-00001-of-00004.safetensors"
        for file in sorted(TINY.glob("*.safetensors")):
            header, data = read_safetensors(file)
            if "model.embed_tokens.weight" in header:
                shard, (begin, _) = file.name, header["model.embed_tokens.weight"]["data_offsets"]
                row = 2 * header["model.embed_tokens.weight"]["shape"][1]
                begin += 9 * row
                write_safetensors(folder / shard, header, data[:begin] + b"\xc0\x7f" * (row // 2) + data[begin + row:])
        return folder

    def test_bench_writes_the_other_rows(self):
        rows = self.rows("rows.jsonl", [{"task_id": i, "input_ids": [7 + i % 3], "output_tokens": 4} for i in range(9)])
        for flags in ([], ["--ep", "4"]):
            with self.subTest(flags):
                out, report = self.folder / "out.jsonl", self.folder / "report.json"
                done = run("bench", "throughput", "-m", self.nan_model() if not flags else self.folder / "model", "--dataset", rows,
                           "--output", out, "--report-json", report, "--threads", "1", *flags)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("3 of 9 requests failed; the first, task_id 2: the model's logits are not finite", done.stderr)
                lines = [json.loads(line) for line in out.read_text().splitlines()]
                self.assertEqual([len(line["ids"]) for line in lines], [4, 4, 0] * 3)
                self.assertEqual(["error" in line for line in lines], [False, False, True] * 3)
                self.assertEqual(json.loads(report.read_text())["request_info"]["num_requests"], 6)

    def test_logits_say_that_they_are_not_finite(self):
        ids = self.path("ids.json", [[1, 2], [3, 9]])
        done = run("logits", "-m", self.nan_model(), "--input-ids", ids, "--output", self.folder / "out")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("list 1, position 1: the logit of token 0 is nan; nothing was written", done.stderr)
        self.assertFalse((self.folder / "out").exists())


if __name__ == "__main__":
    unittest.main()
