#!/usr/bin/env python3
"""What `wideload eplb` writes is there whole or not at all: refused, interrupted, or with no room for it."""
import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import SOURCE, CliTest, run  # noqa: E402

SMALL = SOURCE / "testdata/statistics/small"  # 4 ranks, 32 experts, layers 3, 4 and 7, iterations 100 to 105


class Outputs(CliTest):
    def commands(self, output):
        loads = self.path("loads.csv", "9,2,3,1\n")
        plan = self.path("old.yaml", "num_slots: 6\ninitial_global_assignments:\n  0: [0, 1, 2, 2, 3, 3]\n")
        return [["plan", "--loads", loads, "--ep_size", 2, "--num_slots", 6, "--output_path", output],
                ["repair", "--loads", loads, "--ep_size", 2, "--from", plan, "--output_path", output],
                ["convert", loads, output],
                ["report", "--expert_statistic_path", SMALL, "--html", output]]

    def test_a_folder_that_is_not_there(self):
        for name in ("new.yaml", "new.csv", "new.html"):
            for command in self.commands(self.folder / "lost" / name):
                with self.subTest(command[0]):
                    done = run("eplb", *command)
                    self.assertEqual(done.returncode, 2, done.stderr)
                    self.assertIn("lost", done.stderr)

    def test_what_was_there_stays_when_refused(self):
        output = self.path("new.yaml", "what was there\n")
        bad = self.path("bad.csv", "1,2\n3\n")
        self.refused(["eplb", "plan", "--loads", bad, "--ep_size", 2, "--output_path", output], "bad.csv:2")
        self.refused(["eplb", "repair", "--loads", bad, "--ep_size", 2, "--from", output, "--output_path", output], "new.yaml|bad")
        self.assertEqual(output.read_text(), "what was there\n")

    def test_an_interrupted_run_leaves_what_was_there(self):
        rows = "\n".join(",".join(str(1 + (7 * e + layer) % 50) for e in range(256)) for layer in range(300)) + "\n"
        loads, output = self.path("loads.csv", rows), self.path("new.yaml", "what was there\n")
        sizes = ["--loads", loads, "--ep_size", 32, "--num_slots", 288]
        for command in (["plan", *sizes, "--policy", "scenario", "--output_path", output],
                        ["simulate", *sizes], ["diagnose", *sizes, "--max_layers", 0]):
            for what in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(command=command[0], signal=what):
                    start = time.monotonic()
                    code, stdout, stderr = self.interrupt(["eplb", *command],
                                                          lambda out, err: time.monotonic() > start + 0.5, what)
                    self.assertEqual(code, 128 + what, stderr)
                    self.assertIn("interrupted; nothing was written", stderr)
                    self.assertEqual(stdout, "")
                    self.assertEqual(output.read_text(), "what was there\n")
                    self.assertEqual(self.files(), ["loads.csv", "new.yaml", "stderr", "stdout"])

    def test_an_interrupted_writer_leaves_what_was_there_or_the_whole(self):
        rows = "\n".join(",".join(str((7 * e + layer) % 50) for e in range(4096)) for layer in range(300)) + "\n"
        loads, folder = self.path("loads.csv", rows), self.folder / "out"
        folder.mkdir()
        for name, command in (("new.json", ["convert", loads]), ("new.html", ["report", "--expert_statistic_path", SMALL, "--html"])):
            output, begin = folder / name, time.monotonic()
            self.good("eplb", *command, output)
            whole, took = output.read_bytes(), time.monotonic() - begin
            ends = set()
            for what in (signal.SIGINT, signal.SIGTERM):
                for part in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
                    with self.subTest(command=command[0], signal=what, part=part):
                        output.write_bytes(b"what was there\n")
                        start = time.monotonic()
                        code, _, stderr = self.interrupt(["eplb", *command, output],
                                                         lambda out, err: time.monotonic() > start + part * took, what)
                        self.assertIn(code, (0, 128 + what, -what), stderr)
                        self.assertIn(output.read_bytes(), (b"what was there\n", whole))
                        if "nothing was written" in stderr:
                            self.assertEqual(output.read_bytes(), b"what was there\n")
                        self.assertEqual([path.name for path in folder.iterdir()], [name])
                        ends.add(code)
            output.unlink()
            if command[0] == "convert":
                self.assertTrue(ends & {128 + signal.SIGINT, 128 + signal.SIGTERM}, ends)

    def test_a_full_device(self):
        if not pathlib.Path("/dev/full").exists():
            self.skipTest("no /dev/full")
        for command in self.commands("/dev/full")[:2]:
            with self.subTest(command[0]):
                done = run("eplb", *command)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("/dev/full", done.stderr)


if __name__ == "__main__":
    unittest.main()
