#!/usr/bin/env python3
"""serve --control-port: recording, rebalancing and draining on a listener of their own.
Usage: serve_control_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import http.client
import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import TIMEOUT_S, CliTest, run  # noqa: E402
from serve_support import Server  # noqa: E402

KEY = "a-long-enough-key"


class Control(CliTest):
    def start(self, *flags):
        server = Server("--control-port", 0, *flags)
        self.addCleanup(server.end)
        self.port = int(re.search(r"control routes are on http://127.0.0.1:(\d+)", server.stderr())[1])
        return server

    def ask(self, path, method="POST", headers=None):
        """(status, what was done or the message of the error)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            body = json.loads(response.read())
            return response.status, body.get("done") or body.get("error", {}).get("message", "")
        finally:
            connection.close()

    def denied(self, path, status, text, **more):
        found, said = self.ask(path, **more)
        self.assertEqual(found, status, said)
        self.assertRegex(said, text)

    def generate(self, server, max_tokens):
        status, _ = server.post("/v1/completions", prompt="Once upon a time", max_tokens=max_tokens, ignore_eos=True)
        self.assertEqual(status, 200)

    def test_a_recording_has_the_iterations_between_start_and_stop(self):
        (self.folder / "records").mkdir()
        server = self.start("--ep", 2, "--num-slots", 80, "--rebalance", "repair", "--record-path", self.folder / "records")
        self.denied("/dump_expert_distribution_record", 409, "nothing has been recorded")
        self.denied("/stop_expert_distribution_record", 409, "no recording is under way")
        self.generate(server, 3)
        self.assertEqual(self.ask("/start_expert_distribution_record")[0], 200)
        self.denied("/start_expert_distribution_record", 409, "under way")
        self.generate(server, 9)
        self.assertEqual(self.ask("/stop_expert_distribution_record"), (200, "9 iterations are recorded"))
        self.generate(server, 3)
        for number in range(2):
            status, said = self.ask("/dump_expert_distribution_record")
            self.assertEqual((status, said), (200, f"9 iterations are in {self.folder}/records/{number}"))
            done = run("eplb", "report", "--expert_statistic_path", self.folder / "records" / str(number))
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.ask("/rebalance")[0], 200)
        self.generate(server, 3)

    def test_what_cannot_be_done_is_refused_by_name(self):
        server = self.start("--expert-statistic-path", self.folder / "statistics")
        self.denied("/rebalance", 409, "no online balancer")
        self.denied("/start_expert_distribution_record", 409, "--expert-statistic-path")
        self.denied("/dump_expert_distribution_record", 409, "--record-path")
        self.denied("/rebalance", 405, "POST only", method="GET")
        self.denied("/v1/models", 404, "no such route", method="GET")
        self.denied("/drain", 403, "web pages", headers={"Origin": "http://evil.example"})
        self.assertEqual(server.ask("POST", "/drain")[0], 404)
        self.generate(server, 1)

    def test_keys_are_asked_for_here_too(self):
        self.start("--api-key-file", self.path("keys", KEY + "\n"))
        self.denied("/drain", 401, "API key")
        self.denied("/drain", 401, "API key", headers={"Authorization": "Bearer another-key-of-it"})
        self.assertEqual(self.ask("/health", "GET")[0], 200)

    def test_drain_ends_the_server_as_a_success(self):
        server = self.start()
        self.assertEqual(self.ask("/drain")[0], 200)
        self.assertEqual(server.process.wait(TIMEOUT_S), 0, server.stderr())

    def test_a_record_path_that_cannot_be_used_is_refused(self):
        self.refused(("serve", "--record-path", self.folder), "--record-path needs --control-port")
        self.refused(("serve", "--control-port", 0, "--record-path", self.folder / "none"), "--record-path is .*/none, which is no folder")


if __name__ == "__main__":
    unittest.main()
