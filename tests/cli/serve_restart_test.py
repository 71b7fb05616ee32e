#!/usr/bin/env python3
"""`wideload serve --restart-on-failure`: what clients see when the engine is killed, and how the server ends.
Usage: serve_restart_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import TIMEOUT_S, CliTest, run  # noqa: E402
from serve_support import Server  # noqa: E402

NUM_STREAMS = 4  # that run
NUM_QUEUED = 10
LONG = {"prompt": "Once", "max_tokens": 2000, "ignore_eos": True, "temperature": 0}
RUN_FAILED = 1


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def question(i):
    return {"prompt": f"The number {i}", "max_tokens": 12, "seed": i, "temperature": 0.9}


class Restarting(Server):
    def __init__(self, *flags):
        super().__init__("--restart-on-failure", *flags)

    def engine(self):
        """The pid of the engine's process, once there is one."""
        self.wait_until(lambda: children(self.process.pid), "no engine")
        return children(self.process.pid)[0]

    def kill_engine(self):
        os.kill(self.engine(), signal.SIGKILL)

    def is_ready(self):
        return self.ask("GET", "/ready")[0] == 200

    def wait_ready(self):
        self.wait_until(self.is_ready, "the engine has not come back")

    def open_stream(self):
        """A response, whose first event has come, and its connection."""
        connection = self.connect()
        connection.request("POST", "/v1/completions", json.dumps({**LONG, "stream": True}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.readline()
        return connection, response


class Restart(CliTest):
    def server(self, *flags):
        server = Restarting(*flags)
        self.addCleanup(server.end, signal.SIGKILL)
        return server

    def test_streams_are_told_and_what_had_no_output_is_answered_by_the_next_engine(self):
        server = self.server("--max-batch-size", NUM_STREAMS)
        whole = {i: server.post("/v1/completions", **question(i))[1]["choices"][0]["text"] for i in range(NUM_QUEUED)}
        before = server.engine()
        streams = [server.open_stream() for _ in range(NUM_STREAMS)]
        with concurrent.futures.ThreadPoolExecutor(NUM_QUEUED) as pool:
            def ask(i):
                if i % 2 == 0:
                    return server.post("/v1/completions", **question(i))[1]["choices"][0]["text"]
                return "".join(e["choices"][0]["text"] for e in server.events("/v1/completions", **question(i)))
            queued = [pool.submit(ask, i) for i in range(NUM_QUEUED)]
            server.wait_until(lambda: server.metric("num_requests_open") == NUM_STREAMS + NUM_QUEUED, "requests have not come")
            server.kill_engine()
            killed = time.monotonic()
            self.assertFalse(server.is_ready())
            self.assertEqual(server.ask("GET", "/health")[0], 200)
            for connection, response in streams:
                last = json.loads(response.read().decode().strip().split("data: ")[-1])
                self.assertEqual(last["error"]["message"], "the engine has stopped")
                connection.close()
            self.assertLess(time.monotonic() - killed, 5)
            server.wait_ready()
            self.assertEqual([f.result(TIMEOUT_S) for f in queued], [whole[i] for i in range(NUM_QUEUED)])
        self.assertNotEqual(server.engine(), before)
        self.assertEqual(server.metric("engine_restarts_total"), 1)
        self.assertRegex(server.stderr(), r"the engine has failed: signal 9 \(Killed\); it is started again, 1 of at most 5")
        self.assertEqual(server.end(), 0, server.stderr())

    def test_sigterm_lets_all_requests_end_those_without_an_engine_too(self):
        server = self.server()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            running = pool.submit(server.post, "/v1/completions", **{**LONG, "max_tokens": 300})
            server.wait_until(lambda: server.metric("num_requests_running") == 1, "it does not run")
            server.kill_engine()
            server.wait_until(lambda: not server.is_ready(), "the engine is not missed")
            waiting = [pool.submit(server.post, "/v1/completions", **question(i)) for i in range(5)]
            time.sleep(0.1)
            engine = server.engine()
            os.kill(server.process.pid, signal.SIGTERM)
            for answer in [running, *waiting]:
                self.assertEqual(answer.result(TIMEOUT_S)[0], 200)
        self.assertEqual(server.process.wait(TIMEOUT_S), 0, server.stderr())
        self.assertFalse(pathlib.Path(f"/proc/{engine}").exists())

    def test_an_engine_that_fails_again_and_again_ends_the_server_with_the_cause(self):
        server = self.server("--max-restarts", "2")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", **LONG, n=16)))
        asking.start()
        for _ in range(3):
            server.wait_until(lambda: server.is_ready() and server.metric("num_requests_running") >= 1, "it does not run")
            server.kill_engine()
            server.wait_until(lambda: server.process.poll() is not None or not server.is_ready(), "the engine is not missed")
        asking.join(TIMEOUT_S)
        self.assertEqual(answers[0][0], 500)
        self.assertEqual(answers[0][1]["error"]["message"], "the engine has stopped")
        self.assertEqual(server.process.wait(TIMEOUT_S), RUN_FAILED)
        self.assertIn("error: the engine has failed again (signal 9 (Killed)) after 2 restarts within 10 minutes", server.stderr())

    def test_ranks_that_outlive_their_launcher_do_not_keep_the_next_engine_from_its_place(self):
        launcher = pathlib.Path(self.path("launcher", '#!/bin/sh\n"$@" &\nwait\n'))
        launcher.chmod(0o755)
        server = self.server("--launcher", launcher)
        left = children(server.engine())[0]
        self.addCleanup(os.kill, left, signal.SIGKILL)
        server.kill_engine()
        server.wait_until(lambda: "the engine answers again" in server.stderr(), "the engine has not come back")
        self.assertEqual(server.post("/v1/completions", **question(1))[0], 200)
        self.assertEqual(server.metric("engine_restarts_total"), 1)
        self.addCleanup(os.kill, children(server.engine())[0], signal.SIGKILL)

    def test_the_engine_does_not_outlive_its_front(self):
        server = self.server()
        engine = server.engine()
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        server.wait_until(lambda: not pathlib.Path(f"/proc/{engine}").exists(), "the engine lives")

    def test_an_engine_that_cannot_start_ends_the_server_as_without_a_front(self):
        flags = ("serve", "--port", "0", "--max-seq-len", "1000000")
        alone, behind = run(*flags), run(*flags, "--restart-on-failure")
        self.assertEqual((behind.returncode, behind.stderr), (alone.returncode, alone.stderr))

    def test_drain_of_the_control_routes_ends_the_server(self):
        server = self.server("--control-port", "0")
        found = server.stderr().split("control routes are on http://127.0.0.1:")[1].split()[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(found), timeout=TIMEOUT_S)
        connection.request("POST", "/drain", "")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        self.assertEqual(server.process.wait(TIMEOUT_S), 0, server.stderr())

    def test_what_cannot_go_together_is_refused(self):
        refused = run("serve", "--restart-on-failure", "--trace", self.path("t.json"))
        self.assertRegex(refused.stderr, "--trace writes at the end of a run")
        self.assertRegex(run("serve", "--launcher", "mpirun").stderr, "--launcher starts what --restart-on-failure looks after")


if __name__ == "__main__":
    unittest.main()
