"""A server under test: started once per test class, asked over plain sockets and http.client."""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from cli_support import PROGRAM, TIMEOUT_S

SERVING = re.compile(r"serving (\S+) on https?://localhost:(\d+)")


class Server:
    """`command` is what runs the program, with arguments that come before those of serve; `tls` an SSLContext to ask with; `words` what to run."""

    def __init__(self, *flags, command=(str(PROGRAM),), env=None, tls=None, words=("serve", "--port", "0", "--threads", "1")):
        self.tls = tls
        self.err = tempfile.NamedTemporaryFile(prefix="wideload-serve-", suffix=".err")
        self.process = subprocess.Popen([*command, *words, *map(str, flags)],
                                        stdout=subprocess.DEVNULL, stderr=self.err, stdin=subprocess.DEVNULL, env=env)
        end = time.monotonic() + TIMEOUT_S
        while not (found := SERVING.search(self.stderr())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"the server did not start: {self.stderr()}")
            time.sleep(0.02)
        self.model, self.port = found[1], int(found[2])

    def stderr(self):
        return pathlib.Path(self.err.name).read_text()

    def connect(self, timeout=TIMEOUT_S):
        if self.tls:
            return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection("localhost", self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, body as bytes)"""
        connection = self.connect()
        try:
            data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def post(self, path, **fields):
        """(status, body as JSON)"""
        status, _, body = self.ask("POST", path, fields)
        return status, json.loads(body)

    def events(self, path, **fields):
        """The data of the events of a stream; the last is [DONE]."""
        status, headers, body = self.ask("POST", path, {**fields, "stream": True})
        assert status == 200 and headers["Content-Type"] == "text/event-stream", (status, headers, body)
        parts = body.decode().split("\n\n")
        assert parts.pop() == "" and all(p.startswith("data: ") for p in parts), body
        assert parts[-1] == "data: [DONE]", body
        return [json.loads(p[len("data: "):]) for p in parts[:-1]]

    def raw(self, data, timeout=TIMEOUT_S):
        """A socket on which `data` has been sent."""
        s = socket.create_connection(("localhost", self.port), timeout=timeout)
        s.sendall(data)
        return s

    def metric(self, name):
        text = self.ask("GET", "/metrics")[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"wideload_{name}[{{ ]", line))

    def wait_until(self, condition, what):
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.stderr()}"
            time.sleep(0.02)

    def wait_idle(self):
        self.wait_until(lambda: self.metric("num_requests_open") == 0 and self.metric("num_requests_running") == 0,
                        "requests are left")

    def end(self, signum=signal.SIGTERM):
        """The exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signum)
        return self.process.wait(TIMEOUT_S)


class ServeTest(unittest.TestCase):
    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.end()
        assert code == 0, (code, cls.server.stderr())

    def refusal(self, status, param, path, **fields):
        found, body = self.server.post(path, **fields)
        self.assertEqual(found, status, body)
        self.assertEqual(set(body["error"]), {"message", "type", "param", "code"})
        self.assertEqual(body["error"]["param"], param, body)
        return body["error"]
