#!/usr/bin/env python3
"""Where output goes: links, modes, descriptors and devices are kept; what is read is not written over; nothing partial stays."""
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import PROGRAM, CliTest  # noqa: E402


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


if __name__ == "__main__":
    unittest.main()
