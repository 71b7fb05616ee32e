"""A server that is given hostile requests: spoiled bodies, broken HTTP, clients that go in the middle."""
import copy
import http.client
import json
import pathlib
import re
import signal
import socket
import threading
import time

from hostile_inputs import spoil_bytes, spoil_json

SERVING = re.compile(rb"serving \S+ on http://localhost:(\d+)")
START_S = 300  # of wall time, for a busy machine; what a request costs is limited by the CPU time of the server
ANSWER_S = 300
NUM_CLIENTS = 4
MESSAGES = [{"role": "user", "content": "Once upon"}]
BODIES = [
    ("/v1/completions", {"model": "m", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0.5, "stop": ["zz"]}),
    ("/v1/completions", {"model": "m", "prompt": [[1, 2], [3]], "max_tokens": 3, "n": 2, "logprobs": 2, "echo": True}),
    ("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 30, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": 4, "logit_bias": {"5": 2}, "seed": 1}),
    ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": 20, "stream": True, "logprobs": True,
                              "top_logprobs": 2, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
    ("/tokenize", {"model": "m", "prompt": "a b c"}),
    ("/detokenize", {"model": "m", "tokens": [1, 2, 3]}),
]
PATHS = ["/", "/health", "/metrics", "/v1/models", "/v1/models/x", "/v1/nothing", "//", "/%00", "/v1/completions?a=b"]


def request_of(dice):
    """The bytes of a request, most of them not quite right."""
    path, body = copy.deepcopy(dice.choice(BODIES))
    what = dice.randrange(10)
    data = json.dumps(spoil_json(body, dice) if what < 6 else body).encode()
    if what == 6:
        data = spoil_bytes(data, dice)
    if what == 7:
        data = dice.choice([b"", b"[" * 200000, b"{\"a\":" * 50000, b"\xff" * 100, b"{}", b"[{}" + b",{}" * 100000 + b"]",
                            json.dumps({"model": "m", "prompt": "a b" * 400000}).encode(),
                            json.dumps({"model": "m", "prompt": "a", "stop": ["x" * 5000] * 100}).encode()])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    if what == 8:
        return f"{dice.choice(['GET', 'POST', 'PUT', 'HEAD', 'X' * 3000])} {dice.choice(PATHS)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if what == 9:
        return spoil_bytes(head.encode() + b"\r\n" + data, dice)
    return head.encode() + b"Connection: close\r\n\r\n" + data


def threads_of(process):
    """What each thread of the process waits in."""
    def read(path):
        try:
            return path.read_text().strip()
        except OSError:
            return "?"
    return ", ".join(f"{read(task / 'comm')} in {read(task / 'wchan')}" for task in
                     sorted(pathlib.Path(f"/proc/{process.pid}/task").glob("*")))


class Clients:
    """Sends what the seed says from several threads at once, and notes what is no answer."""

    def __init__(self, port, seed, process):
        self.port, self.seed, self.process = port, seed, process
        self.wrong = []

    def run(self, num_requests, make_dice):
        threads = [threading.Thread(target=self.client, args=(make_dice(f"{self.seed}-{i}"), num_requests // NUM_CLIENTS))
                   for i in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.wrong

    def client(self, dice, num_requests):
        for _ in range(num_requests):
            if self.process.poll() is not None:
                return
            data = request_of(dice)
            try:
                self.send(data, dice)
            except TimeoutError:
                self.wrong.append(f"no answer within {ANSWER_S} s to {data[:300]!r}; {threads_of(self.process)}")
                return
            except (OSError, http.client.HTTPException):
                pass  # the server may close a connection on which no HTTP came

    def send(self, data, dice):
        goes = dice.random() < 0.3
        with socket.create_connection(("localhost", self.port), timeout=ANSWER_S) as s:
            if goes:
                s.sendall(data[:dice.randrange(len(data) + 1)])
                time.sleep(dice.random() * 0.1)
                return
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := s.recv(1 << 16):
                answer = (answer + piece)[:1 << 20]
            if answer and not re.match(rb"HTTP/1\.1 [1-5]\d\d ", answer):
                self.wrong.append(f"{answer[:100]!r} to {data[:300]!r}")
            if re.match(rb"HTTP/1\.1 500 ", answer):
                self.wrong.append(f"{answer[-300:]!r} to {data[:300]!r}")


def is_healthy(port):
    connection = http.client.HTTPConnection("localhost", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def attack(process, read_stderr, seed, make_dice, num_requests=60):
    """Sends hostile requests to a server that has been started, then ends it. What it may not do, or None."""
    no_later = time.monotonic() + START_S
    while (found := SERVING.search(read_stderr())) is None:
        if process.poll() is not None:
            return "the server did not start"
        if time.monotonic() > no_later:
            return f"the server has not started within {START_S} s; {threads_of(process)}"
        time.sleep(0.02)
    port = int(found[1])
    wrong = Clients(port, seed, process).run(num_requests, make_dice)
    if process.poll() is None and not is_healthy(port):
        wrong.append("/health is not well afterwards")
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return wrong[0] if wrong else None
