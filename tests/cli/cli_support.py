"""What the tests of the program share: running it, and model folders that are wrong in one place."""
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("WIDELOAD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
PROGRAM = pathlib.Path(os.environ.get("WIDELOAD_PROGRAM", SOURCE / "build/release/bin/wideload")).resolve()
EMBEDDED = SOURCE / "models/wideload-14m"
TINY = SOURCE / "testdata/models/tiny-qwen3-moe"  # no tokenizer; 4 shards; 16 experts, vocabulary 320, context 512
TIMEOUT_S = 120  # a hang, not a measurement

STARTED = "online balancer"  # of the line that every start of the engine prints
LOADING = "loading weights"


def run(*args, stdin="", cwd=None, env=None):
    """The finished process, output as text."""
    return subprocess.run([str(PROGRAM), *map(str, args)], input=stdin, cwd=cwd, env=env, capture_output=True,
                          text=True, encoding="utf-8", timeout=TIMEOUT_S)


def read_safetensors(path):
    """(header, bytes of the data part)"""
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)  # it may be a link to the good file
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="wideload-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name, content=None):
        path = self.folder / name
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def rows(self, name, rows):
        return self.path(name, "".join(json.dumps(row) + "\n" for row in rows))

    def model(self, source, **changes):
        """A folder of links to the files of `source`; changes to config.json's fields (None removes)."""
        folder = self.folder / "model"
        folder.mkdir()
        for file in source.iterdir():
            if file.is_file():
                (folder / file.name).symlink_to(file)
        if changes:
            config = json.loads((source / "config.json").read_text())
            config.update(changes)
            self.replace(folder / "config.json", {k: v for k, v in config.items() if v is not None})
        return folder

    def replace(self, path, value):
        path.unlink()
        path.write_text(json.dumps(value), encoding="utf-8")

    def files(self):
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))

    def good(self, *args, **kwargs):
        done = run(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, args, *found, stdin="", early=True):
        """Exit code 2, nothing on stdout, no file made or changed, and every regex of `found` in the message. early:
        before weights are read; else at least before the engine starts."""
        before = self.files()
        done = run(*args, stdin=stdin)
        self.assertEqual(done.returncode, 2, (args, done.stderr))
        self.assertEqual(done.stdout, "")
        self.assertEqual(self.files(), before)
        for regex in found:
            self.assertRegex(done.stderr, regex)
        self.assertNotIn("internal error", done.stderr)
        self.assertNotIn(STARTED, done.stderr)
        if early:
            self.assertNotIn(LOADING, done.stderr)
        return done

    def interrupt(self, args, is_ready, what=signal.SIGINT):
        """Starts the program, sends the signal once is_ready(stdout so far, stderr so far) says so; (code, stdout, stderr)."""
        with open(self.path("stderr"), "wb") as err, open(self.path("stdout"), "wb") as out:
            process = subprocess.Popen([str(PROGRAM), *map(str, args)], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
            while process.poll() is None and not is_ready(self.path("stdout").read_bytes(), self.path("stderr").read_bytes()):
                try:
                    process.wait(0.01)
                except subprocess.TimeoutExpired:
                    pass
            process.send_signal(what)
            code = process.wait(TIMEOUT_S)
        return code, self.path("stdout").read_text(), self.path("stderr").read_text()


def field_value(text, name):
    """The number after `name` in a line of the iteration log."""
    return int(re.search(rf"'{name}': (\d+)", text)[1])
