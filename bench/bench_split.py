#!/usr/bin/env python3
"""Where the CPU time of a decode iteration goes: kernels, and what is around them. perf samples the CPU clock of an engine of one
thread that decodes a batch; a sample is the kernels' if its function is of the kernel sets, and else of the module it is in. Needs perf.

usage: split --model FOLDER [--batch N] [--seconds S] [--rounds N]
"""
import argparse
import collections
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

WORKER = pathlib.Path(sys.argv[0]).absolute().parent / "peers_worker"
KERNELS = "wideload::compute::(anonymous namespace)::"
MODULE = re.compile(r"wideload::([a-z]\w*)::")  # classes of base and tensor are capitalised
GOAL = 5  # percent outside kernels


class Worker:
    def __init__(self, folder):
        self.process = subprocess.Popen([WORKER, folder, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"split: {WORKER.name} has ended")
        return line.strip()

    def decode(self, batch, steps, seed):
        """CPU seconds of a step."""
        self.process.stdin.write(f"decode {batch} {steps} {seed}\n")
        self.process.stdin.flush()
        return float(self.answer().split()[1])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def where(symbol):
    if symbol.startswith("[k]"):
        return "Linux"
    name = symbol.removeprefix("[.] ")
    if name.startswith(KERNELS):
        return "kernels"
    module = MODULE.match(name)
    if module:
        return module[1] + (": arguments and tasks of ops" if module[1] == "compute" else "")
    return "base, tensor" if name.startswith("wideload::") else "C and C++ libraries"


def sampled(worker, arguments, seed):
    """Percent of samples by place while the worker decodes, and CPU seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf"
        perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-p", str(worker.process.pid), "-o", data],
                                stdin=subprocess.DEVNULL)
        seconds = []
        while sum(seconds) < arguments.seconds:
            seconds += [worker.decode(arguments.batch, arguments.steps, seed)] * arguments.steps
            seed += 1
        perf.send_signal(signal.SIGINT)
        perf.wait()
        report = subprocess.run(["perf", "report", "-q", "-i", data, "--no-children", "--stdio", "--sort", "symbol", "-F", "sample,symbol"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    counts = collections.Counter()
    for line in report.splitlines():
        if found := re.match(r"\s*(\d+)\s+(\[.\] .*\S)", line):
            counts[where(found[2])] += int(found[1])
    total = sum(counts.values())
    if total == 0:
        sys.exit("split: perf has no samples")
    return {place: 100 * count / total for place, count in counts.items()}, statistics.median(seconds), seed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a checkpoint")
    parser.add_argument("--batch", type=int, default=1, help="requests that decode")
    parser.add_argument("--steps", type=int, default=50, help="tokens of each at a time")
    parser.add_argument("--seconds", type=float, default=5, help="CPU time of a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not shutil.which("perf"):
        print("split: not measured here: there is no perf")
        return 0
    worker = Worker(arguments.model)
    worker.decode(arguments.batch, arguments.steps, 0)  # memory is touched for the first time
    rounds, times, seed = [], [], 1
    for _ in range(arguments.rounds):
        shares, seconds, seed = sampled(worker, arguments, seed)
        rounds.append(shares)
        times.append(seconds)
    worker.end()
    print(f"{worker.about}, one thread, {arguments.batch} requests decode, {arguments.rounds} rounds of {arguments.seconds} s, medians")
    print(f"an iteration takes {1e3 * statistics.median(times):.2f} ms of CPU time")
    places = {place: [shares.get(place, 0) for shares in rounds] for shares in rounds for place in shares}
    for place, shares in sorted(places.items(), key=lambda item: -statistics.median(item[1])):
        print(f"  {place:<36} {statistics.median(shares):6.2f} % [{min(shares):.2f}-{max(shares):.2f}]")
    outside = [100 - shares.get("kernels", 0) for shares in rounds]
    print(f"outside kernels {statistics.median(outside):.2f} % [{min(outside):.2f}-{max(outside):.2f}]   goal < {GOAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
