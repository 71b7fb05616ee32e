#!/usr/bin/env python3
"""What HTTP costs `wideload serve`: CPU of its threads by what they do, per token, at so many streams of the embedded model; and how
much longer a token takes there than in `wideload bench throughput` with as many requests at once. Runs of the two take turns: on a
machine that does other things only their ratio counts.

usage: serve_overhead [--streams N] [--tokens N] [--rounds N]
"""
import argparse
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAM = pathlib.Path(os.environ.get("WIDELOAD_PROGRAM", pathlib.Path(sys.argv[0]).parent / "wideload")).resolve()
SERVING = re.compile(r"serving \S+ on http://localhost:(\d+)")
TICKS = os.sysconf("SC_CLK_TCK")
OUTSIDE = ("http", "read")  # names of threads that are not the engine's begin so
TOKENS_PER_SECOND = 200  # of all streams together: the rate at which their share of a core is told


def thread_seconds(pid):
    """CPU seconds of each thread by its name."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        user, system = rest.split()[11:13]
        seconds[name] = seconds.get(name, 0) + (int(user) + int(system)) / TICKS
    return seconds


class Server:
    def __init__(self, streams):
        self.err = tempfile.NamedTemporaryFile(suffix=".err")
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", "0", "--threads", "1", "--max-batch-size", str(streams)],
                                        stderr=self.err, stdin=subprocess.DEVNULL)
        while not (found := SERVING.search(pathlib.Path(self.err.name).read_text())):
            if self.process.poll() is not None:
                sys.exit(pathlib.Path(self.err.name).read_text())
            time.sleep(0.05)
        self.port = int(found[1])

    def metric(self, name):
        with urllib.request.urlopen(f"http://localhost:{self.port}/metrics") as answer:
            return sum(float(line.rsplit(" ", 1)[1]) for line in answer.read().decode().splitlines()
                       if line.startswith(f"wideload_{name}{{"))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def serve_once(server, rows, options):
    """(CPU seconds by thread, tokens, milliseconds a token)"""
    before, tokens = thread_seconds(server.process.pid), server.metric("generation_tokens_total")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PROGRAM, "bench", "serve", "--port", str(server.port), "--dataset-name", "custom", "--dataset-path", rows,
                        "--num-prompts", str(options.streams), "--max-concurrency", str(options.streams), "--ignore-eos",
                        "--save-result", "--result-dir", folder, "--result-filename", "result.json"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        result = json.loads(pathlib.Path(folder, "result.json").read_text())
    after = thread_seconds(server.process.pid)
    used = {name: after[name] - before.get(name, 0) for name in after}
    return used, server.metric("generation_tokens_total") - tokens, result["mean_tpot_ms"]


def bench_once(rows, options):
    """Milliseconds a token."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        subprocess.run([PROGRAM, "bench", "throughput", "--dataset", rows, "--concurrency", str(options.streams), "--threads", "1",
                        "--max-batch-size", str(options.streams), "--ignore-eos", "--temperature", "0", "--warmup", "0", "--report-json", report],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(report.read_text())["streaming_metrics"]["avg_tpot_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as rows:
        for i in range(options.streams):
            rows.write(json.dumps({"task_id": i, "input_ids": [1 + (i * 37 + j * 11) % 300 for j in range(16)],
                                   "output_tokens": options.tokens}) + "\n")
        rows.flush()
        server = Server(options.streams)
        try:
            serve_once(server, rows.name, options)  # warm
            cpu, tokens, served, alone = {}, 0, [], []
            for _ in range(options.rounds):
                used, count, ms = serve_once(server, rows.name, options)
                cpu = {name: cpu.get(name, 0) + seconds for name, seconds in used.items()}
                tokens += count
                served.append(ms)
                alone.append(bench_once(rows.name, options))
        finally:
            server.end()
    for name, seconds in sorted(cpu.items()):
        print(f"thread {name:<16}{1e6 * seconds / tokens:8.1f} us of CPU a token")
    outside = sum(seconds for name, seconds in cpu.items() if name.startswith(OUTSIDE))
    print(f"outside the engine {1e6 * outside / tokens:.1f} us a token: {100 * outside / tokens * TOKENS_PER_SECOND:.2f} % of a core at "
          f"{TOKENS_PER_SECOND} tokens/s together, {100 * outside / sum(cpu.values()):.1f} % of the server's CPU at full speed")
    added = statistics.median(s - a for s, a in zip(served, alone))
    print(f"{options.streams} streams: {statistics.median(served):.2f} ms a token over HTTP, {statistics.median(alone):.2f} in bench throughput; "
          f"median of the differences {added:.2f} ms, that is {added / options.streams:.3f} ms for each token of an iteration")


if __name__ == "__main__":
    main()
