#!/usr/bin/env python3
"""This engine beside others on the same weights: llama.cpp, vLLM's CPU build and transformers, each in an environment of its own under
build/peers (made on first use; one that cannot be had is left out with a line).

usage: ./dev bench peers [--part engine|serve] [--model qwen3-30b-a3b|wideload-14m] [--threads N ...] [--rounds N] [--real-time] ...

engine: prompts of 512 and 2048 tokens and decode of 1, 4 and 16 requests, in each engine's own process without HTTP. One thread counts
the process's CPU time where that is less than time on the wall, more count time on the wall.
serve: `wideload serve` and `vllm serve` answer the same requests of `wideload bench serve`, a closed loop of mixed lengths.
Engines take turns, those that wait are stopped; medians of the rounds, and the ratios of each round with their spread.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(sys.argv[0]).absolute().parent
FOLDER = SOURCE.parent / "build/peers"
sys.path.insert(0, str(SOURCE / "peers"))
import environments  # noqa: E402

OURS = "wideload"
SMALL = SOURCE.parent / "models/wideload-14m"
PROMPTS = (512, 2048)
BATCHES = (1, 4, 16)
DECODE_STEPS = 12
GREEDY = "greedy 40 16 1"
PRIORITY = 10  # of --real-time
END_SECONDS = 30
READY_SECONDS = 900  # vLLM compiles its graphs when it starts


class Round:
    """In real time a round is followed by a pause as long, for everybody else on the machine."""

    def __init__(self, real_time):
        self.real_time = real_time

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, *_):
        if self.real_time:
            time.sleep(time.monotonic() - self.start)


class Turns:
    """A process with all of its children, which runs only where it is told to."""

    def __init__(self, name, command, environment, real_time=False, **pipes):
        self.name, self.real_time = name, real_time
        self.log = FOLDER / f"{name}.run.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stderr=log, text=True, start_new_session=True,
                                            env={**os.environ, **environment}, **pipes)

    def __enter__(self):
        self.signal(signal.SIGCONT)
        if self.real_time:
            self.schedule(os.SCHED_FIFO, PRIORITY)
        return self

    def __exit__(self, *_):
        if self.real_time:
            self.schedule(os.SCHED_OTHER, 0)
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def schedule(self, policy, priority):
        for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(status.read_text().rsplit(")", 1)[1].split()[2]) != self.process.pid:  # process group
                    continue
                for thread in (status.parent / "task").iterdir():
                    os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))
            except (FileNotFoundError, ProcessLookupError):
                pass

    def end(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)  # so that it removes its shared memory
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()


class Worker(Turns):
    """An engine that answers the lines of peers/worker.py."""

    def __init__(self, name, command, environment, real_time):
        super().__init__(name, command, environment, real_time, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = self.process.stdout.readline().strip()
        self.signal(signal.SIGSTOP)

    def ask(self, line):
        with self:
            try:
                print(line, file=self.process.stdin, flush=True)
                answer = self.process.stdout.readline().strip()
            except BrokenPipeError:
                answer = ""
        if not answer:
            sys.exit(f"{self.name} ended at '{line}' ({self.log})")
        return answer


def cores(threads):
    return sorted(os.sched_getaffinity(0))[:threads]


def environment_for(name, threads):
    values = {"OMP_NUM_THREADS": str(threads)}
    if name == "vllm":
        values |= {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores(threads))), "VLLM_CPU_KVCACHE_SPACE": "2",
                   "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1",
                   "HF_HUB_OFFLINE": "1", "VLLM_CACHE_ROOT": str(FOLDER / "vllm-cache")}
    if name == "transformers":
        values["HF_HUB_OFFLINE"] = "1"
    return values


def model_folder(name):
    """The checkpoint, made when it is not there."""
    if name == SMALL.name:
        return SMALL
    folder = FOLDER / "models" / name
    if not folder.exists():
        subprocess.run([SOURCE.parent / "tools/shaped_checkpoint.py", name, folder], check=True, stdout=sys.stderr)
        for file in ("tokenizer.json", "tokenizer_config.json"):  # as large a vocabulary; servers want one
            shutil.copy(SMALL / file, folder)
    return folder


def gguf_file(folder, python):
    file = FOLDER / "models" / f"{folder.name}.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        subprocess.run([python, SOURCE.parent / "tools/gguf_checkpoint.py", folder, part], check=True)
        part.rename(file)
    return file


def start_workers(folder, threads, pythons, real_time):
    workers = [Worker(OURS, [PROGRAMS / "peers_worker", folder, str(threads)], {}, real_time)]
    for name, python in pythons.items():
        weights = gguf_file(folder, python) if name == "llama.cpp" else folder
        script = SOURCE / "peers" / f"{name.replace('.', '_')}_worker.py"
        worker = Worker(name, [python, "-B", script, weights, str(threads)], environment_for(name, threads), real_time)
        if worker.about:
            workers.append(worker)
        else:
            print(f"  {name}: not measured, it does not start ({worker.log})")
            worker.end()
    for worker in workers:
        print(f"  {worker.name}: {worker.about}")
    return workers


def same_tokens(workers):
    """How far each engine's greedy tokens after the same prompt are ours: whether it computes the same model."""
    tokens = {worker.name: worker.ask(GREEDY).split() for worker in workers}
    for name in list(tokens)[1:]:
        equal = [a == b for a, b in zip(tokens[OURS], tokens[name])]
        print(f"  {name}: {(equal + [False]).index(False)} of {len(equal)} greedy tokens as ours, then "
              f"{'the end' if all(equal) else 'others'}")


def measure(workers, questions, rounds, threads):
    """seconds[question][name] of the rounds after one that warms up."""
    seconds = {question: {worker.name: [] for worker in workers} for question in questions}
    for turn in range(rounds + 1):
        order = workers[turn % len(workers):] + workers[:turn % len(workers)]
        for question in questions:
            with Round(workers[0].real_time):
                for worker in order:
                    wall, cpu = map(float, worker.ask(f"{question} {turn + 2}").split())
                    if turn > 0:
                        seconds[question][worker.name].append(min(wall, cpu) if threads == 1 else wall)
    return seconds


def spread(values, form):
    return f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


def print_row(what, speeds):
    """speeds[name]: of the rounds."""
    peers = [name for name in speeds if name != OURS]
    line = f"  {what:<18}{statistics.median(speeds[OURS]):>9.1f}"
    for name in peers:
        ratios = [ours / theirs for ours, theirs in zip(speeds[OURS], speeds[name])]
        line += f"  | {statistics.median(speeds[name]):>12.1f}  {spread(ratios, '.2f'):<18}"
    print(line, flush=True)


def heading(names):
    print(f"  {'tokens/s':<18}{OURS:>9}" + "".join(f"  | {name:>12}  {'ours / its':<18}" for name in names))


def run_engine(args, folder, threads, pythons):
    limit = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    work = {f"prefill {tokens}": tokens for tokens in PROMPTS if tokens < limit}
    work |= {f"decode {batch} {DECODE_STEPS}": batch for batch in BATCHES}
    workers = start_workers(folder, threads, pythons, args.real_time)
    try:
        same_tokens(workers)
        seconds = measure(workers, work, args.rounds, threads)
    finally:
        for worker in workers:
            worker.end()
    heading([worker.name for worker in workers[1:]])
    for question, tokens in work.items():
        print_row(" ".join(question.split()[:2]), {name: [tokens / s for s in values] for name, values in seconds[question].items()})


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_server(name, folder, threads, pythons, real_time):
    port = free_port()
    if name == OURS:
        command = [PROGRAMS / "wideload", "serve", "--model", folder, "--port", str(port), "--threads", str(threads)]
    else:
        command = [pythons[name], "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port), "--dtype", "bfloat16", "--max-num-seqs", "64"]
    environment = environment_for(name, threads)
    # Its programs find one another by this.
    environment |= {"PATH": f"{pathlib.Path(command[0]).parent}:{os.environ['PATH']}"}
    server = Turns(name, command, environment, real_time, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    server.port = port
    end = time.monotonic() + READY_SECONDS
    while server.process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    else:
        print(f"  {name}: not measured, it does not start ({server.log})")
        server.end()
        return None
    server.signal(signal.SIGSTOP)
    return server


def drive(server, folder, args, seed):
    """The client's report."""
    result = FOLDER / "serve.json"
    with server:
        subprocess.run([PROGRAMS / "wideload", "bench", "serve", "--port", str(server.port), "--dataset-name", "random", "--tokenizer",
                        folder, "--random-input-len", str(args.input_len), "--random-output-len", str(args.output_len),
                        "--random-range-ratio", "0.8", "--num-prompts", str(args.num_prompts), "--max-concurrency",
                        str(args.concurrency), "--ignore-eos", "--seed", str(seed), "--ready-check-timeout-sec", "60", "--save-result",
                        "--result-dir", result.parent, "--result-filename", result.name],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       preexec_fn=(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY + 1)))
                       if args.real_time else None)
    return json.loads(result.read_text())


def run_serve(args, folder, threads, pythons):
    names = [OURS] + [name for name in pythons if name == "vllm"]
    servers = [server for name in names if (server := start_server(name, folder, threads, pythons, args.real_time))]
    reports = {server.name: [] for server in servers}
    try:
        for turn in range(args.rounds + 1):
            for server in servers if turn % 2 else servers[::-1]:
                with Round(args.real_time):
                    report = drive(server, folder, args, turn + 1)
                if report["completed"] != args.num_prompts:
                    sys.exit(f"{server.name} answered {report['completed']} of {args.num_prompts} requests ({server.log})")
                if turn > 0:
                    reports[server.name].append(report)
    finally:
        for server in servers:
            server.end()
    print(f"  {args.num_prompts} requests, {args.concurrency} at once, {args.input_len} tokens in and {args.output_len} out, each +- 80 %")
    heading([server.name for server in servers[1:]])
    for key, what in (("output_throughput", "output tokens/s"), ("total_token_throughput", "all tokens/s"),
                      ("p99_ttft_ms", "p99 TTFT, ms"), ("median_ttft_ms", "median TTFT, ms"), ("median_tpot_ms", "median TPOT, ms")):
        print_row(what, {name: [report[key] for report in values] for name, values in reports.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=("engine", "serve"), default=["engine", "serve"])
    parser.add_argument("--model", nargs="+", default=["qwen3-30b-a3b", SMALL.name])
    parser.add_argument("--peers", nargs="*", choices=environments.MAKERS, default=list(environments.MAKERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--real-time", action="store_true", help="whoever has its turn runs before all others on the machine (root)")
    parser.add_argument("--num-prompts", type=int, default=32, help="of serve")
    parser.add_argument("--concurrency", type=int, default=16, help="of serve")
    parser.add_argument("--input-len", type=int, default=256, help="of serve")
    parser.add_argument("--output-len", type=int, default=64, help="of serve")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    pythons = {name: python for name in args.peers if (python := environments.python_of(FOLDER, name))}
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    print(f"{processor[1] if processor else 'unknown processor'}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
          f"{args.rounds} rounds{', real-time priority' if args.real_time else ''}")
    for model in args.model:
        folder = model_folder(model)
        for threads in args.threads:
            for part in args.part:
                print(f"{model}, {part}, threads {threads}", flush=True)
                {"engine": run_engine, "serve": run_serve}[part](args, folder, threads, pythons)


if __name__ == "__main__":
    main()
