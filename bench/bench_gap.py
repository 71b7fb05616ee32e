#!/usr/bin/env python3
"""What lies between two iterations of `wideload serve` under so many streams: the engine's thread plans and hands out what came of the
last one, and ranks rest. From a run's --trace: of the engine, from the end of a step to the beginning of the next; of rank 0, from the
end of an iteration to the beginning of the next. The middle half of the iterations counts: all streams run. With --base PROGRAM that one
takes turns with ours.

usage: gap [--streams N...] [--tokens N] [--rounds N] [--base PROGRAM] [--engine "OPTIONS"]
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

PROGRAM = pathlib.Path(os.environ.get("WIDELOAD_PROGRAM", pathlib.Path(sys.argv[0]).parent / "wideload")).resolve()
SERVING = re.compile(r"serving \S+ on http://localhost:(\d+)")


def spans(events, process, name):
    """[(iteration, begin, end)] in microseconds, of one thread of the process."""
    pid = next(e["pid"] for e in events if e["name"] == "process_name" and e["args"]["name"] == process)
    return sorted((e["args"]["iteration"], e["ts"], e["ts"] + e["dur"])
                  for e in events if e["ph"] == "X" and e["pid"] == pid and e["name"] == name)


def gaps(events, process, name, used):
    """Medians of (work, gap), and the gaps' share of the time, over the iterations in `used`."""
    all_spans = spans(events, process, name)
    found = [(a, b) for a, b in zip(all_spans, all_spans[1:]) if b[0] == a[0] + 1 and a[0] in used and b[0] in used]
    work, rest = [a[2] - a[1] for a, _ in found], [b[1] - a[2] for a, b in found]
    return statistics.median(work), statistics.median(rest), 100 * sum(rest) / (sum(work) + sum(rest))


def run_once(program, streams, options):
    """{track: (work, gap, share)}"""
    with tempfile.TemporaryDirectory() as folder:
        rows, trace, err = (pathlib.Path(folder, name) for name in ("rows.jsonl", "trace.json", "err"))
        rows.write_text("".join(json.dumps({"task_id": i, "input_ids": [1 + (i * 37 + j * 11) % 300 for j in range(16)],
                                            "output_tokens": options.tokens}) + "\n" for i in range(streams)))
        with err.open("w") as out:
            server = subprocess.Popen([program, "serve", "--port", "0", "--max-batch-size", str(streams), "--trace", trace,
                                       *options.engine.split()], stderr=out, stdin=subprocess.DEVNULL)
        while not (port := SERVING.search(err.read_text())):
            if server.poll() is not None:
                sys.exit(err.read_text())
            time.sleep(0.05)
        subprocess.run([program, "bench", "serve", "--port", port[1], "--dataset-name", "custom", "--dataset-path", rows, "--num-prompts",
                        str(streams), "--max-concurrency", str(streams), "--ignore-eos"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        server.send_signal(signal.SIGTERM)
        server.wait()
        events = json.loads(trace.read_text())["traceEvents"]
    steps = [s[0] for s in spans(events, "engine", "step")]
    used = set(steps[len(steps) // 4: len(steps) * 3 // 4])
    return {"engine": gaps(events, "engine", "step", used), "rank 0": gaps(events, "rank 0", "iteration", used)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=pathlib.Path, help="another build's program")
    parser.add_argument("--engine", default="--threads 1", help="options of the engine")
    options = parser.parse_args()
    programs = {"ours": PROGRAM} | ({"base": options.base.resolve()} if options.base else {})
    for streams in options.streams:
        found = {name: [] for name in programs}
        for _ in range(options.rounds):
            for name, program in programs.items():
                found[name].append(run_once(program, streams, options))
        for name, runs in found.items():
            for track in runs[0]:
                work, gap, share = (statistics.median(run[track][i] for run in runs) for i in range(3))
                low, high = (choose(run[track][1] for run in runs) for choose in (min, max))
                print(f"{streams:4} streams  {name}  {track:7} works {work:8.1f} us, then {gap:6.1f} us [{low:.1f}-{high:.1f}] between: "
                      f"{share:.2f} % of the time")


if __name__ == "__main__":
    main()
