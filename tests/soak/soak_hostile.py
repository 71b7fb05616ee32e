#!/usr/bin/env python3
"""Feeds the program hostile files, requests, limits and signals, and says what it does that it may not.

usage: soak_hostile.py [--minutes M] [--seed S] [--program PATH]

Each round takes a good command, spoils one of its files (bytes, sizes, numbers, nesting, names, links), its flags or
what the system gives it (memory, threads, descriptors, file size, a signal), and runs it; or sends a server bodies that
are spoiled, broken HTTP and clients that go. Whatever happens, the program must end by itself with the exit code 0, 1 or
2, or 128 + the signal that it was sent, and take no more CPU time and memory than it may: time on the wall counts only
where it stands still. It must say why when its exit code is not 0; never end by a check, an abort or a fault; leave
every input as it was, and nothing but its output beside it. Prints each finding with its seed, and keeps its folder.
"""
import argparse
import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import hostile_server
from hostile_inputs import MODEL, ROOT, good_commands, spoil_flags, spoil_input

PROGRAM = ROOT / "build/release/bin/wideload"

CPU_S = 60
STANDSTILL_S = 120  # on the wall, in which hardly a thread of a process runs or waits for a core
MEMORY_BYTES = 3 << 30  # of addresses; a good run of these commands needs a third
NOBODY = 65534  # limits of threads hold for users other than root


class Finding(Exception):
    pass


class Round:
    def __init__(self, seed, program):
        self.seed = seed
        self.dice = random.Random(seed)
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"wideload-hostile-{seed}-"))

    def run(self):
        """Errors: Finding."""
        dice = self.dice
        arguments, inputs, output = dice.choice(good_commands(self.folder, dice))
        limits, sent = {}, None
        what = dice.randrange(11)
        if what == 10:
            return self.attack_server()
        if what < 4:
            spoil_input(inputs, dice)
        elif what < 7:
            arguments = spoil_flags(arguments, dice)
        elif what == 7:
            limits = dice.choice([{resource.RLIMIT_AS: dice.randrange(20, 400) << 20}, {resource.RLIMIT_NOFILE: dice.randrange(3, 24)},
                                  {resource.RLIMIT_FSIZE: dice.randrange(0, 20000)}, {resource.RLIMIT_STACK: 1 << 18},
                                  {resource.RLIMIT_NPROC: dice.randrange(1, 4)}])
        elif what == 8:
            sent = dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        else:  # an output that is an input, or is nowhere
            target = dice.choice([*inputs, self.folder / "none/out", self.folder, "/dev/full", "/dev/null", "/dev/stdout", "-"])
            arguments = [target if output is not None and a == output else a for a in arguments]
        self.command = " ".join(map(str, arguments))
        before = self.snapshot()
        code, stderr = self.execute(arguments, limits, sent)
        self.judge(code, stderr, limits, sent, before, output)

    def snapshot(self):
        files = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink():
                files[path] = os.readlink(path)
            elif path.is_file():
                files[path] = path.read_bytes()
        return files

    def attack_server(self):
        self.command = f"serve -m {MODEL}"
        limits = self.dice.choice([{}, {}, {resource.RLIMIT_NOFILE: 24}])
        before = self.snapshot()
        flags = ["serve", "-m", MODEL, "--port", "0", "--threads", "1", "--max-open-requests", "8", "--drain-timeout", "5"]
        with self.start(flags, limits) as (process, err, _):
            def read_stderr():
                return os.pread(err.fileno(), 1 << 20, 0)
            wrong = hostile_server.attack(process, read_stderr, self.seed, random.Random)
            if wrong:
                process.kill()
            code = self.wait(process)
            stderr = read_stderr().decode(errors="replace")
        if wrong:
            raise Finding(f"{wrong}, exit code {code}: {stderr[-2000:]}")
        self.judge(code, stderr, limits, signal.SIGTERM, before, None)

    @contextlib.contextmanager
    def start(self, arguments, limits):
        """The process, and the files of its standard error and output."""
        as_nobody = resource.RLIMIT_NPROC in limits and os.geteuid() == 0
        if as_nobody:
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

        def limit():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for kind, value in {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CPU: CPU_S, **limits}.items():
                resource.setrlimit(kind, (value, value))
            if as_nobody:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as out:
            process = subprocess.Popen([str(self.program), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err, preexec_fn=limit, cwd=self.folder)
            try:
                yield process, err, out
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    @staticmethod
    def activity(process):
        """(CPU time in clock ticks, whether a thread runs or would on an idle machine)"""
        tasks = [path.read_text().rsplit(")", 1)[1].split() for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/stat")]
        return sum(int(fields[11]) + int(fields[12]) for fields in tasks), any(fields[0] in "RD" for fields in tasks)

    def wait(self, process):
        """The exit code. Errors: Finding when the process stands still."""
        used, since = 0, time.monotonic()
        while True:
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                pass
            try:
                now, is_active = self.activity(process)
            except OSError:
                continue  # a thread has just ended
            # An idle server looks around now and then.
            if now > used + time.monotonic() - since or is_active:
                used, since = now, time.monotonic()
            if time.monotonic() - since > STANDSTILL_S:
                raise Finding(f"stands still after {now} clock ticks of CPU time")

    def execute(self, arguments, limits, sent):
        with self.start(arguments, limits) as (process, err, out):
            if sent is not None:
                try:
                    process.wait(self.dice.random() * 0.4)
                except subprocess.TimeoutExpired:
                    process.send_signal(sent)
            code = self.wait(process)
            err.seek(0)
            out.seek(0)
            stderr = err.read().decode(errors="replace")
            # What inspect, check and report find is their answer, not an error of their run.
            answer = out.read(1 << 20)
            return code, stderr + ("error" if b"cannot be run" in answer or b"does not load" in answer else "")

    def judge(self, code, stderr, limits, sent, before, output):
        said = stderr[-2000:]
        allowed = {0, 1, 2}
        if sent is not None:
            allowed |= {128 + sent, -sent}
        if resource.RLIMIT_FSIZE in limits:
            allowed.add(-signal.SIGXFSZ)
        if code == 127 and (resource.RLIMIT_AS in limits or resource.RLIMIT_NOFILE in limits):
            return  # the system could not load the program
        if code in (-signal.SIGXCPU, -signal.SIGKILL) and sent != signal.SIGKILL:
            raise Finding(f"took {CPU_S} s of CPU time: {said}")
        if code not in allowed:
            raise Finding(f"exit code {code}: {said}")
        for word in ("check failed", "terminate called", "internal error", "AddressSanitizer", "runtime error"):
            if word in stderr:
                raise Finding(f"'{word}', exit code {code}: {said}")
        if code in (1, 2) and "error" not in stderr:
            raise Finding(f"exit code {code} without a word of why: {said}")
        after = self.snapshot()
        for path, content in before.items():
            if path != output and after.get(path) != content:
                raise Finding(f"{path} was changed: {said}")
        # A folder is an output as a whole, once a run has come to its end.
        is_whole = code == 0 or sent is not None
        left = [str(path) for path in after
                if path not in before and path != output and not (is_whole and output in path.parents)]
        if left and sent != signal.SIGKILL:
            raise Finding(f"left {left}: {said}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each has the next one")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many; 0: until the time is over")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    options = parser.parse_args()
    end, seed, num_found = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < end and (options.rounds == 0 or seed < options.seed + options.rounds):
        one = Round(seed, options.program.resolve())
        try:
            one.run()
            shutil.rmtree(one.folder)
        except Finding as finding:
            num_found += 1
            print(f"FOUND with --seed {seed} ({one.folder}): wideload {one.command}\n  {finding}", flush=True)
        seed += 1
    print(f"{seed - options.seed} hostile runs, {num_found} findings", flush=True)
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())
