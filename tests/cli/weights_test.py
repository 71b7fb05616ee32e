#!/usr/bin/env python3
"""Where weights lie: in a file of packed experts, on NUMA nodes, in huge pages. What is computed stays the same."""
import re
import shutil
import unittest

from cli_support import CliTest, TINY


class Weights(CliTest):
    def setUp(self):
        super().setUp()
        self.experts = self.folder / "experts"
        self.dataset = self.rows("rows.jsonl", [{"task_id": i, "input_ids": [1 + i, 7, 9 + 3 * i], "output_tokens": 5}
                                                for i in range(6)])

    def args(self, *flags, model=TINY):
        return ["bench", "throughput", "-m", model, "--dataset", self.dataset, "--output", self.folder / "out",
                "--temperature", "0.8", "--seed", "3", *flags]

    def bench(self, *flags):
        done = self.good(*self.args(*flags))
        return (self.folder / "out").read_bytes(), done.stderr

    def refused_file(self, *found, flags=(), model=TINY):
        self.refused(self.args("--weight-file", self.experts, *flags, model=model), *(re.escape(str(text)) for text in found))

    def test_a_file_of_experts_is_written_once_and_gives_the_same_bytes(self):
        wanted, _ = self.bench()
        stamps = set()
        for flags in ((), ("--ep", "2"), ("--ep", "4", "--num-slots", "20", "--rebalance", "random:1"),
                      ("--ep", "2", "--slot-storage", "copy", "--verify-slots", "--rebalance", "random:1")):
            got, says = self.bench("--weight-file", self.experts, *flags)
            self.assertEqual(got, wanted, flags)
            self.assertIn(f"(experts in {self.experts})", says)
            self.assertEqual("packing experts" in says, not stamps)
            stamps.add((self.experts.stat().st_ino, self.experts.stat().st_mtime_ns))
        self.assertEqual(len(stamps), 1)

    def test_a_file_of_something_else_is_refused_by_name(self):
        self.experts.write_bytes(b"x" * 10000)
        self.refused_file(self.experts, "no file of packed experts")
        self.experts.unlink()
        self.bench("--weight-file", self.experts, "--kernels", "reference")
        self.refused_file(self.experts, "packed for the kernels reference; this run has avx2", flags=("--kernels", "avx2"))
        other = TINY.parent / "tiny-olmoe"
        self.refused_file(self.experts, "packed from another checkpoint", flags=("--kernels", "reference"), model=other)
        self.experts.write_bytes(self.experts.read_bytes()[:-64])
        self.refused_file(self.experts, "bytes; ", flags=("--kernels", "reference"))

    def test_trained_again_is_another_checkpoint(self):
        self.bench("--weight-file", self.experts)
        model = self.folder / "again"
        shutil.copytree(TINY, model)
        for shard in model.glob("*.safetensors"):
            data = bytearray(shard.read_bytes())
            data[-2000:] = bytes(byte ^ 1 for byte in data[-2000:])
            shard.chmod(0o600)
            shard.write_bytes(data)
        self.refused_file(self.experts, "another checkpoint", model=model)

    def test_options_that_say_nothing_of_a_file_are_refused(self):
        for flags in (("--weight-store", "mine"), ("--weight-numa", "bind"), ("--weight-huge-pages",)):
            self.refused_file(flags[0], "--weight-file", flags=flags)
        self.refused_file("--weight-file", "has no experts", model=TINY.parent / "tiny-llama")
        self.experts = self.folder / "missing" / "experts"
        self.refused_file(self.experts)

    def test_pages_are_asked_for_and_what_is_not_granted_is_said(self):
        wanted, says = self.bench()
        self.assertNotIn("--weight-", says)
        for flags in (("--weight-numa", "interleave"), ("--weight-numa", "bind"), ("--weight-huge-pages", "--ep", "2")):
            got, says = self.bench(*flags)
            self.assertEqual(got, wanted, flags)
            self.assertLessEqual(says.count("--weight-"), 1, says)
            if "--weight-" in says:
                self.assertRegex(says, f"{flags[0]}.*(one NUMA node|cores of all|does not let|huge pages)")


if __name__ == "__main__":
    unittest.main()
