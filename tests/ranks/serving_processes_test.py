#!/usr/bin/env python3
"""`wideload serve` on processes started by mpirun: control routes, and what clients are told when a rank is killed.
Usage: serving_processes_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import http.client
import json
import os
import pathlib
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

from cli_support import PROGRAM, TIMEOUT_S, CliTest, run  # noqa: E402
from program_processes_test import MPIRUN, Ranks, living, segments  # noqa: E402


class Serving(CliTest):
    def serving(self, num_ranks, *flags, mpirun=None):
        """(the run, the port)"""
        ranks = Ranks(self, num_ranks, ["serve", "--port", "0", "--threads", "1", *flags], mpirun=mpirun)
        ranks.wait_for("serving")
        return ranks, int(re.search(r"serving \S+ on http://localhost:(\d+)", ranks.stderr())[1])

    def is_ready(self, port):
        connection = http.client.HTTPConnection("localhost", port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status != 503
        except (OSError, http.client.HTTPException):
            return False  # nobody listens any more
        finally:
            connection.close()

    def test_clients_are_told_when_a_rank_is_killed(self):
        ranks, port = self.serving(4, mpirun=[MPIRUN, "--enable-recovery", "-n", "4", str(PROGRAM)])
        pids = ranks.pids()

        def ask(stream):
            connection = http.client.HTTPConnection("localhost", port, timeout=TIMEOUT_S)
            connection.request("POST", "/v1/completions", json.dumps(
                {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": stream}))
            return connection
        whole, streamed = ask(False), ask(True)
        events = streamed.getresponse()
        events.readline()  # so it runs
        os.kill(pids[1], signal.SIGKILL)
        killed = time.monotonic()
        answer = whole.getresponse()
        told = [json.loads(answer.read()), json.loads(events.read().decode().strip().split("data: ")[-1])]
        self.assertLess(time.monotonic() - killed, 5)
        self.assertEqual(answer.status, 500)
        for body in told:
            self.assertEqual(body["error"]["message"], "the engine has stopped")
        self.assertFalse(self.is_ready(port))
        while any(map(living, pids)) and time.monotonic() < killed + 5:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if living(pid)], [])
        self.assertRegex(ranks.stderr(), r"rank 1(: it)? is dead")

    def test_control_routes_act_on_all_ranks(self):
        folder = self.folder / "records"
        folder.mkdir()
        ranks, port = self.serving(2, "--control-port", "0", "--record-path", folder, "--num-slots", "72", "--rebalance", "repair")
        control = int(re.search(r"control routes are on http://127.0.0.1:(\d+)", ranks.stderr())[1])

        def post(port, path, body="{}"):
            connection = http.client.HTTPConnection("localhost", port, timeout=TIMEOUT_S)
            connection.request("POST", path, body)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            connection.close()
            self.assertEqual(answer.status, 200, (path, said))
            return said
        post(control, "/start_expert_distribution_record")
        post(port, "/v1/completions", json.dumps({"prompt": "Once", "max_tokens": 9, "ignore_eos": True}))
        self.assertEqual(post(control, "/stop_expert_distribution_record")["done"], "9 iterations are recorded")
        post(control, "/rebalance")
        post(port, "/v1/completions", json.dumps({"prompt": "Once", "max_tokens": 3}))
        post(control, "/dump_expert_distribution_record")
        self.assertEqual(run("eplb", "report", "--expert_statistic_path", folder / "0").returncode, 0)
        post(control, "/drain")
        self.assertEqual(ranks.end(), 0, ranks.stderr())

    def test_ranks_behind_a_front_are_started_again_by_its_launcher(self):
        ranks = Ranks(self, 4, ["serve", "--port", "0", "--threads", "1", "--restart-on-failure", "--launcher", f"{MPIRUN} -n 4"],
                      mpirun=[str(PROGRAM)])
        ranks.wait_for("serving")
        port = int(re.search(r"serving \S+ on http://localhost:(\d+)", ranks.stderr())[1])
        started = self.processes_of(ranks.mpirun.pid)
        self.assertEqual(len(started), 4)

        def ask(**fields):
            connection = http.client.HTTPConnection("localhost", port, timeout=TIMEOUT_S)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "Once", "ignore_eos": True, "temperature": 0, **fields}))
            return connection.getresponse()
        before = json.loads(ask(max_tokens=20).read())["choices"][0]["text"]
        events = ask(max_tokens=1900, stream=True)
        events.readline()  # so it runs
        os.kill(started[1], signal.SIGKILL)
        killed = time.monotonic()
        told = json.loads(events.read().decode().strip().split("data: ")[-1])
        self.assertLess(time.monotonic() - killed, 5)
        self.assertEqual(told["error"]["message"], "the engine has stopped")
        self.assertEqual(json.loads(ask(max_tokens=20).read())["choices"][0]["text"], before)
        self.assertTrue(self.is_ready(port))
        self.assertFalse(set(started) & set(self.processes_of(ranks.mpirun.pid)))
        ranks.mpirun.terminate()
        self.assertEqual(ranks.end(), 0, ranks.stderr())
        self.assertEqual(segments(), [])

    @staticmethod
    def processes_of(front):
        """The ranks of the mpirun that a front has started."""
        def children(pid):
            return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [rank for mpirun in children(front) for rank in children(mpirun)
                if pathlib.Path(os.readlink(f"/proc/{rank}/exe")) == PROGRAM]

    def test_a_front_among_ranks_is_refused(self):
        ranks = Ranks(self, 2, ["serve", "--port", "0", "--restart-on-failure"])
        self.assertEqual(ranks.mpirun.wait(TIMEOUT_S), 2)
        self.assertRegex(ranks.stderr(), "error: --restart-on-failure starts the ranks itself, and mpirun or srun")


if __name__ == "__main__":
    unittest.main()
