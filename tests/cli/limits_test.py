#!/usr/bin/env python3
"""Large and hostile input costs the program no more time and memory than its size explains."""
import os
import pathlib
import resource
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import random_checkpoint  # noqa: E402
import wide_model  # noqa: E402
from cli_support import PROGRAM, CliTest  # noqa: E402

# What costs time in proportion to the input takes a second or two of these; what is quadratic takes hours.
MAX_CPU_S = 20
PROGRAM_BYTES = 16 << 20  # code, libraries and heap of a run without input


class Limits(CliTest):
    def measured(self, *args, code=0):
        """Runs the program, which must end with `code`, with its CPU time limited; (stdout, stderr, peak memory in bytes)."""
        def limit():
            resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
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


if __name__ == "__main__":
    unittest.main()
