#!/usr/bin/env python3
"""Puts `wideload serve` under load that a public server meets, and holds it to what it promises: many requests at once without
an error or a leak, overload that is refused and slows nobody who is admitted, clients that break off in every phase, readers
that do not read, and requests that never come to their end. The load is that of `wideload bench serve`, the model the embedded
one. Prints a line a stage; exit code 1 when one has not held.

usage: soak_serve.py [--stages load,overload,disconnects,readers,slowloris] [--requests N] [--concurrency N] [--disconnects N]
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = SOURCE / "build/release/bin/wideload"
SERVING = re.compile(r"serving \S+ on http://localhost:(\d+)")
START_S, IDLE_S, ANSWER_S = 60, 60, 120  # hangs, not measurements
# What allocators keep of a peak; 2 x 10^4 requests that lost 2 KiB each would be 40.
RSS_SLACK_MIB = 24
TTFT_RATIO = 1.2
SEED = 5


class Finding(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Finding(what)


class Server:
    def __init__(self, program, *flags):
        self.err = tempfile.NamedTemporaryFile(prefix="wideload-soak-", suffix=".err")
        self.program = program
        self.process = subprocess.Popen([program, "serve", "--port", "0", "--threads", "1", *map(str, flags)],
                                        stdout=subprocess.DEVNULL, stderr=self.err, stdin=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        while not (found := SERVING.search(self.said())):
            expect(self.process.poll() is None and time.monotonic() < end, f"the server did not start: {self.said()}")
            time.sleep(0.05)
        self.port = int(found[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        code = self.process.wait(START_S)
        expect(kind is not None or code == 0, f"exit code {code}: {self.said()}")

    def said(self):
        return pathlib.Path(self.err.name).read_text()[-2000:]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("localhost", self.port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def metric(self, name):
        text = self.ask("GET", "/metrics")[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"wideload_{name}[{{ ]", line))

    def wait_idle(self):
        """Until nothing is under way and no connection but the one that asks is left."""
        end = time.monotonic() + IDLE_S
        while any(self.metric(name) for name in ("num_requests_open", "num_requests_running", "num_requests_waiting")) or \
                self.state()["fds"] != self.quiet_fds:
            expect(time.monotonic() < end, f"after {IDLE_S} s requests or descriptors are left: {self.state()}")
            time.sleep(0.1)

    def state(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        number = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1])
        return {"rss_mib": number("VmRSS") // 1024, "threads": number("Threads"),
                "fds": len(os.listdir(f"/proc/{self.process.pid}/fd"))}

    def note_quiet(self):
        self.quiet_fds = self.state()["fds"]

    def expect_as(self, before):
        self.wait_idle()
        now = self.state()
        expect((now["threads"], now["fds"]) == (before["threads"], before["fds"]), f"left threads or descriptors: {before}, {now}")
        expect(now["rss_mib"] <= before["rss_mib"] + RSS_SLACK_MIB, f"memory has grown: {before}, {now}")
        return now

    def bench(self, *flags):
        done = subprocess.run([self.program, "bench", "serve", "--port", str(self.port), "--json", "--ignore-eos", *map(str, flags)],
                              capture_output=True, text=True)
        expect(done.returncode == 0, f"bench serve: {done.stderr[-500:]}")
        return json.loads(done.stdout)

    def send(self, data):
        connection = socket.create_connection(("localhost", self.port), timeout=ANSWER_S)
        connection.sendall(data)
        return connection


def request(max_tokens, head="", **fields):
    body = json.dumps({"prompt": "The history of the", "max_tokens": max_tokens, "ignore_eos": True, "stream": True, **fields}).encode()
    return f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode(), body


# A KV cache of which a warm-up of MIXED touches every page, so that memory that grows afterwards is lost.
SMALL_CACHE = ("--kv-cache-memory", "32M")
MIXED = ("--dataset-name", "random", "--input-len", 40, "--random-range-ratio", 0.9, "--output-len", 8)


def load(options):
    """All requests are answered, and what they took is given back."""
    with Server(options.program, "--max-open-requests", 2 * options.concurrency, "--max-connections", 2 * options.concurrency,
                *SMALL_CACHE) as server:
        server.note_quiet()
        warmup = server.bench(*MIXED, "--num-prompts", 4 * options.concurrency, "--max-concurrency", options.concurrency)
        expect(warmup["failed"] == 0, f"failed: {warmup['error_counts']}")
        server.wait_idle()
        before = server.state()
        found = server.bench(*MIXED, "--num-prompts", options.requests, "--max-concurrency", options.concurrency, "--seed", SEED)
        expect(found["failed"] == 0 and found["completed"] == options.requests, f"failed: {found['error_counts']}")
        expect(found["max_concurrent_requests"] == min(options.concurrency, options.requests), "fewer at once than asked for")
        after = server.expect_as(before)
        # Every block that is left is one of the prefix cache, which gives it to who needs it.
        long = server.ask("POST", "/v1/completions", {"prompt": [1] * 1900, "max_tokens": 100, "ignore_eos": True})
        expect(long[0] == 200, f"after the load a request of the whole context: {long[0]}")
        return (f"{options.requests} requests, {options.concurrency} at once, {found['total_input_tokens']} + "
                f"{found['total_output_tokens']} tokens in {found['duration']:.1f} s, no error; before {before}, after {after}")


def overload(options):
    """Ten times the rate that the server can take: the rest is refused at once, and who is admitted waits no longer."""
    admitted = 32
    with Server(options.program, "--max-open-requests", admitted) as server:
        server.note_quiet()
        fields = ("--dataset-name", "random", "--input-len", 32, "--output-len", 16)
        ratios, refused, ended = [], 0, 0
        for pair in range(options.pairs):
            full = server.bench(*fields, "--num-prompts", 600, "--max-concurrency", admitted, "--seed", pair)
            expect(full["failed"] == 0, f"without overload: {full['error_counts']}")
            rate = 10 * full["request_throughput"]
            over = server.bench(*fields, "--num-prompts", 6000, "--request-rate", f"{rate:.1f}", "--seed", pair)
            expect(set(over["error_counts"]) <= {"429 overloaded"}, f"with overload: {over['error_counts']}")
            expect(over["failed"] > over["completed"], f"ten times the rate, and only {over['failed']} refused")
            ratios.append(over["p99_ttft_ms"] / full["p99_ttft_ms"])
            refused, ended = refused + over["failed"], ended + over["completed"]
        holders = [server.send(b"".join(request(400))) for _ in range(admitted)]
        try:
            end = time.monotonic() + IDLE_S
            while server.metric("num_requests_open") < admitted and time.monotonic() < end:
                time.sleep(0.01)
            status, headers, _ = server.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
        finally:
            for holder in holders:
                holder.close()
        expect(status == 429 and int(headers.get("Retry-After", 0)) > 0, f"one too many: {status} {headers}")
        server.wait_idle()
        ratio = statistics.median(ratios)
        text = (f"{ended} admitted, {refused} refused with 429; p99 TTFT of the admitted over that without overload: median "
                f"{ratio:.2f} of {[round(r, 2) for r in ratios]}")
        expect(ratio <= TTFT_RATIO, f"more than {TTFT_RATIO}: {text}")
        return text


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def break_off(server, phase, dice):
    """One client that goes away with a reset in this phase."""
    head, body = request(40)
    sent = {"connected": b"", "header": head[:dice.randrange(1, len(head))], "before body": head,
            "body": head + body[:dice.randrange(1, len(body))]}.get(phase, head + body)
    connection = server.send(sent)
    if phase in ("generating", "last token"):
        seen = b""
        while (b"[DONE]" if phase == "last token" else b"data: ") not in seen:
            piece = connection.recv(1 << 16)
            expect(piece, f"{phase}: the stream has ended")
            seen = seen[-64:] + piece
            if b" 429 " in seen:  # cancelled ones were still open: broken off as it is
                break
    elif phase == "reading":
        time.sleep(dice.random() * 0.02)
    reset(connection)


def disconnects(options):
    """Resets in every phase leave nothing behind."""
    phases = ("connected", "header", "before body", "body", "queued", "reading", "generating", "last token")
    with Server(options.program, "--max-open-requests", 256, *SMALL_CACHE) as server:
        server.note_quiet()
        server.bench(*MIXED, "--num-prompts", 2048, "--max-concurrency", 128)
        server.wait_idle()
        before = server.state()
        counts = collections.Counter()

        def some(worker):
            dice = random.Random(SEED * 1000 + worker)
            for i in range(worker, options.disconnects, 16):
                break_off(server, phases[i % len(phases)], dice)
                counts[phases[i % len(phases)]] += 1

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(some, range(16)))
        after = server.expect_as(before)
        expect(server.bench("--dataset-name", "embedded", "--num-prompts", 20)["failed"] == 0, "afterwards requests fail")
        return f"{sum(counts.values())} resets, {min(counts.values())} or more in each of {len(phases)} phases; before {before}, after {after}"


def readers(options):
    """Clients that take nothing of their streams hold up nobody, and their requests come to an end."""
    with Server(options.program) as server:
        server.note_quiet()
        fields = ("--dataset-name", "random", "--input-len", 16, "--output-len", 8, "--num-prompts", 200, "--max-concurrency", 8)
        server.bench(*fields)
        slow = []
        for _ in range(16):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("localhost", server.port))
            connection.sendall(b"".join(request(1500, logprobs=5)))
            slow.append(connection)
        with_slow = server.bench(*fields)
        expect(with_slow["failed"] == 0, f"beside slow readers: {with_slow['error_counts']}")
        end = time.monotonic() + ANSWER_S
        while server.metric("num_requests_running") + server.metric("num_requests_waiting") > 0:
            expect(time.monotonic() < end, "requests of clients that do not read run for ever")
            time.sleep(0.2)
        for connection in slow:
            connection.close()
        server.wait_idle()
        return "16 streams that nobody read came to their end; 200 requests beside them were answered"


def slowloris(options):
    """Heads, bodies and idle connections end at the limits of docs/howto/serve.md."""
    limits = {"head": 10, "body": 60, "idle": 75}
    head, body = request(4)
    with Server(options.program) as server:
        server.note_quiet()
        first = {"head": b"P", "body": head + body[:1], "idle": b""}
        rest = {"head": head[1:], "body": body[1:], "idle": b""}
        start, kind_of = time.monotonic(), {}
        for kind in limits:
            for _ in range(50):
                connection = server.send(first[kind])
                kind_of[connection] = kind
        ended, sent = collections.defaultdict(list), 0
        while kind_of and time.monotonic() < start + max(limits.values()) + 15:
            readable, _, _ = select.select(list(kind_of), [], [], 0.5)
            for connection in readable:
                ended[kind_of.pop(connection)].append(time.monotonic() - start)
                connection.close()
            if time.monotonic() - start > 2 * (sent + 1):  # a byte in two seconds
                for connection, kind in kind_of.items():
                    try:
                        connection.sendall(rest[kind][sent:sent + 1])
                    except OSError:
                        pass  # it has just been closed
                sent += 1
        expect(not kind_of, f"still open: {collections.Counter(kind_of.values())}")
        for kind, limit in limits.items():
            expect(all(limit - 1 <= after <= limit + 5 for after in ended[kind]),
                   f"{kind}: closed after {min(ended[kind]):.1f} to {max(ended[kind]):.1f} s instead of {limit}")
        server.wait_idle()
        return ", ".join(f"{kind} closed after {max(ended[kind]):.0f} s" for kind in limits)


STAGES = {"load": load, "overload": overload, "disconnects": disconnects, "readers": readers, "slowloris": slowloris}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--disconnects", type=int, default=10000)
    parser.add_argument("--pairs", type=int, default=3, help="of runs without and with overload")
    options = parser.parse_args()
    options.program = str(options.program.resolve())
    num_found = 0
    for name in options.stages.split(","):
        start = time.monotonic()
        try:
            text = STAGES[name](options)
        except Finding as finding:
            num_found += 1
            text = f"FOUND: {finding}"
        print(f"{name} ({time.monotonic() - start:.0f} s): {text}", flush=True)
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())
