#!/usr/bin/env python3
"""Where output goes: links, modes, descriptors and devices are kept; what is read is not written over; nothing partial stays."""
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import PROGRAM, SOURCE, TINY, CliTest  # noqa: E402


class Places(CliTest):
    def setUp(self):
        super().setUp()
        self.texts = self.path("texts.json", ["a text"])
        self.ids = self.good("tokenize", "-i", self.texts).stdout

    def test_a_link_and_a_mode_are_kept(self):
        real, link = self.path("real.json", "old"), self.folder / "link.json"
        real.chmod(0o600)
        link.symlink_to("real.json")
        self.good("tokenize", "-i", self.texts, "-o", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(real.read_text(), self.ids)
        self.assertEqual(stat.S_IMODE(real.stat().st_mode), 0o600)

    def test_descriptors_of_the_shell(self):
        out = self.folder / "out"
        for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            with self.subTest(name):
                with open(out, "wb") as file:
                    file.write(b"before\n")
                    file.flush()
                    done = subprocess.run([str(PROGRAM), "tokenize", "-i", str(self.texts), "-o", name], stdout=file,
                                          stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(out.read_text(), "before\n" + self.ids)
        command = f'"{PROGRAM}" tokenize -i "{self.texts}" -o /dev/fd/3 3> "{out}"'
        subprocess.run(["sh", "-c", command], check=True)
        self.assertEqual(out.read_text(), self.ids)

    def test_a_planted_name_is_not_followed(self):
        victim = self.path("victim", "precious")
        script = f'ln -s "{victim}" "{self.folder}/out.$$.part"; exec "{PROGRAM}" tokenize -i "{self.texts}" -o "{self.folder}/out"'
        subprocess.run(["sh", "-c", script], check=True)
        self.assertEqual(victim.read_text(), "precious")

    def has_output_open(self, pid):
        """Whether the process has a file of the test's folder open, with or without a name."""
        try:
            return any(str(self.folder) in os.readlink(file) for file in pathlib.Path(f"/proc/{pid}/fd").iterdir())
        except OSError:  # a descriptor that is gone by now
            return False

    def test_nothing_stays_when_a_signal_ends_it(self):
        command = [str(PROGRAM), "tokenize", "-o", str(self.folder / "out.json")]
        for what in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            with self.subTest(what):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
                while process.poll() is None and not self.has_output_open(process.pid):
                    time.sleep(0.01)
                process.send_signal(what)
                process.wait(60)
                process.stdin.close()
                self.assertEqual(self.files(), ["texts.json"])


class Folders(CliTest):
    def test_statistics_that_cannot_be_written_are_refused_before_the_run(self):
        rows = self.rows("rows.jsonl", [{"task_id": 0, "input_ids": [1], "output_tokens": 1}])
        (self.folder / "loop").symlink_to("loop")
        for place in (self.folder / "loop", self.folder / ("a" * 300), rows / "x"):
            self.refused(["bench", "throughput", "-m", TINY, "--dataset", rows, "--expert-statistic-path", place], "cannot write")


class Shared(CliTest):
    """Outputs that are inputs, or the same as another output, are refused before anything is written."""

    def unchanged(self, args, *found):
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self.refused(args, *found)
        self.assertEqual({path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}, before)

    def spellings(self, path):
        """The path as it is, another spelling, a link, and another name of the same file."""
        link, hard = path.with_name("link"), path.with_name("hard")
        link.symlink_to(path.name)
        os.link(path, hard)
        return [path, f"{path.parent}/./{path.name}", link, hard]

    def test_apply_template(self):
        template, chats = self.path("chat.jinja", "hello"), self.path("chats.json", [])
        command = ["apply-template", "--chat-template", template, "-i", chats, "-o"]
        for target in self.spellings(template):
            self.unchanged([*command, target], "--output", "--chat-template")
        self.unchanged([*command, chats], "--output", "--input")
        for command in (["chat"], ["serve", "--port", "0"]):
            self.unchanged([*command, "--chat-template", template, "--trace", template], "--trace", "--chat-template")

    def test_bench(self):
        rows = self.rows("rows.jsonl", [{"task_id": 0, "input_ids": [1], "output_tokens": 1}])
        for output in self.spellings(rows):
            for flag in ("--output", "--report-json", "--report", "--iteration-log", "--trace"):
                self.unchanged(["bench", "throughput", "--dataset", rows, flag, output], flag, "--dataset", "is read there")
        config = self.path("config.yaml", "max_batch_size: 4\n")
        self.unchanged(["bench", "throughput", "--dataset", rows, "--config", config, "--output", config], "--output", "--config")
        self.unchanged(["bench", "throughput", "--dataset", rows, "--output", self.folder / "a", "--report-json",
                        f"{self.folder}/./a"], "--output", "--report-json", "goes there too")
        self.unchanged(["bench", "throughput", "--dataset", rows, "--output", "-", "--report-json", "-"], "--output", "goes there too")

    def test_logits(self):
        ids, model = self.path("ids.json", [[1]]), self.folder / "m"
        shutil.copytree(TINY, model)
        for name in ("model-00002-of-00004.safetensors", "config.json", "model.safetensors.index.json"):
            self.unchanged(["logits", "-m", model, "--input-ids", ids, "--output", model / name], "--output", "--model", name)
        self.unchanged(["logits", "-m", model, "--input-ids", ids, "--output", ids], "--input-ids")
        self.good("logits", "-m", model, "--input-ids", ids, "--output", model / "logits")

    def test_tokenize(self):
        texts = self.path("texts.json", ["a"])
        self.unchanged(["tokenize", "-i", texts, "-o", texts], "--output", "--input")

    def test_eplb(self):
        plan = self.path("old.yaml", "num_slots: 6\ninitial_global_assignments:\n  0: [0, 1, 2, 2, 3, 3]\n")
        sizes = ["--ep_size", 2, "--num_slots", 6]
        csv = self.path("loads.csv", "9,2,3,1\n")
        for output in self.spellings(csv):
            self.unchanged(["eplb", "plan", "--loads", csv, *sizes, "--output_path", output], "--output_path", "--loads")
        self.unchanged(["eplb", "repair", "--loads", csv, "--ep_size", 2, "--from", plan, "--output_path", plan], "--from")
        self.unchanged(["eplb", "convert", csv, csv], "output", "input")
        statistics = self.folder / "statistics"
        shutil.copytree(SOURCE / "testdata/statistics/small", statistics)
        self.unchanged(["eplb", "report", "--expert_statistic_path", statistics, "--html", statistics / "meta_info.json"], "--html")
        self.unchanged(["eplb", "convert", statistics, statistics, "--replace"], "output", "input")


if __name__ == "__main__":
    unittest.main()
