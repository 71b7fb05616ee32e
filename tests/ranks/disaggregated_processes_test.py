#!/usr/bin/env python3
"""`wideload serve disaggregated` on processes started by mpirun: the answers of `serve`, what a dead server costs, one voice.
Usage: disaggregated_processes_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import concurrent.futures
import os
import pathlib
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

from cli_support import PROGRAM, TIMEOUT_S, CliTest  # noqa: E402
from program_processes_test import ENVIRONMENT, MPIRUN, Ranks, living, segments  # noqa: E402
from serve_disaggregated_test import REQUESTS, answers  # noqa: E402
from serve_support import Server  # noqa: E402

FILE = """
port: 0
kv_transfer: {transfer}
max_seq_len: 1024
max_retries: {retries}
threads: 1
context_servers: {{num_instances: {instances}, {context}}}
generation_servers: {{{generation}}}
"""


def has_stopped(pid):
    """Whether the kernel has stopped all threads of a process: each once it would run."""
    states = [(task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


class Serving(CliTest):
    def file(self, instances=1, context="max_num_tokens: 64", generation="max_batch_size: 16", transfer="auto", retries=0):
        return self.path("sides.yaml", FILE.format(instances=instances, context=context, generation=generation, transfer=transfer,
                                                         retries=retries))

    def serving(self, num_ranks, path, *flags, wrapper=()):
        """(the server, the pids of its ranks)"""
        server = Server("--config", path, *flags, command=(MPIRUN, "--enable-recovery", "-n", str(num_ranks), *wrapper, str(PROGRAM)),
                        env=ENVIRONMENT, words=("serve", "disaggregated"))
        self.addCleanup(server.process.kill)
        ranks = Ranks.__new__(Ranks)
        ranks.test, ranks.mpirun, ranks.num_ranks, ranks.err = self, server.process, num_ranks, pathlib.Path(server.err.name)
        return server, ranks.pids()

    def ended(self, server, pids):
        """The exit code of mpirun once all processes are gone."""
        code = server.process.wait(TIMEOUT_S)
        self.assertEqual([pid for pid in pids if living(pid)], [])
        self.assertEqual(segments(pids[0]), [])
        return code

    def test_answers_are_those_of_one_engine(self):
        one = Server("--max-seq-len", 1024)
        expected = answers(one)
        self.assertEqual(one.end(), 0)
        for num_ranks, *sides in ((2, 1),
                                  (3, 1, "max_num_tokens: 64", "tensor_parallel_size: 2", "network"),
                                  (4, 1, "tensor_parallel_size: 2", "tensor_parallel_size: 2, enable_attention_dp: true", "network"),
                                  (4, 2, "max_num_tokens: 64", "num_instances: 2", "network"),
                                  (4, 2, "max_num_tokens: 64", "tensor_parallel_size: 2"),
                                  (4, 1, "tensor_parallel_size: 2", "tensor_parallel_size: 2, enable_attention_dp: true"),
                                  (4, 1, "pipeline_parallel_size: 2", "context_parallel_size: 2"),
                                  (4, 1, "context_parallel_size: 2", "pipeline_parallel_size: 2", "network"),
                                  (6, 2, "max_num_tokens: 64", "num_instances: 2, tensor_parallel_size: 2, router: {type: load_balancing}")):
            path = self.file(*sides)
            server, pids = self.serving(num_ranks, path)
            self.assertRegex(server.stderr(), r"prompts are computed by \d of \d servers, in processes")
            self.assertEqual(answers(server), expected, path.read_text())
            server.wait_idle()
            self.assertGreater(server.metric("handed_over_prompts_total"), 0)
            self.assertGreater(server.metric("handed_over_bytes_total"), 0)
            # What a server says of itself comes with its next message but one.
            server.wait_until(lambda: server.metric("context_prompts_total") > 0, "no prompt is counted")
            os.kill(pids[0], signal.SIGTERM)
            self.assertEqual(self.ended(server, pids), 0, server.stderr())

    def test_a_dead_context_server_costs_the_prompts_on_it(self):
        server, pids = self.serving(3, self.file(2))

        def ask(_):
            return server.post("/v1/completions", prompt="The history of the " * 100, max_tokens=40, ignore_eos=True)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            long = pool.submit(lambda: server.post("/v1/completions", prompt="Once", max_tokens=900, ignore_eos=True))
            server.wait_until(lambda: server.metric("handed_over_prompts_total") > 0, "a prompt is handed over")
            os.kill(pids[1], signal.SIGSTOP)  # so that what it has is not computed
            server.wait_until(lambda: has_stopped(pids[1]), "all of its threads stand still")
            asked = [pool.submit(ask, i) for i in range(4)]
            server.wait_until(lambda: server.metric("handed_over_prompts_total") > 2, "the other one computes its own")
            os.kill(pids[1], signal.SIGKILL)
            found = [answer.result() for answer in asked]
            self.assertEqual(long.result()[0], 200)
        self.assertEqual(sorted(status for status, _ in found), [200, 200, 500, 500])
        for status, body in found:
            if status == 500:
                self.assertEqual(body["error"]["message"], "the engine has stopped")
        self.assertEqual(ask(0)[0], 200)
        self.assertRegex(server.stderr(), "context server 0 is gone")
        os.kill(pids[2], signal.SIGKILL)  # the last one
        self.ended(server, pids)  # mpirun with --enable-recovery says nothing
        self.assertRegex(server.stderr(), "error: a context server has ended before the others")

    def test_a_dead_rank_of_a_later_stage_costs_the_prompts_on_its_server(self):
        server, pids = self.serving(5, self.file(2, context="pipeline_parallel_size: 2, max_num_tokens: 64"))

        def ask(_):
            return server.post("/v1/completions", prompt="The history of the " * 40, max_tokens=9, ignore_eos=True)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertEqual([status for status, _ in pool.map(ask, range(2))], [200, 200])
            os.kill(pids[2], signal.SIGSTOP)  # of the first server the second stage
            server.wait_until(lambda: has_stopped(pids[2]), "all of its threads stand still")
            asked = [pool.submit(ask, i) for i in range(4)]
            server.wait_until(lambda: server.metric("handed_over_prompts_total") == 4, "the other one computes its own")
            os.kill(pids[2], signal.SIGKILL)
            found = [answer.result() for answer in asked]
        self.assertEqual(sorted(status for status, _ in found), [200, 200, 500, 500])
        for status, body in found:
            if status == 500:
                self.assertEqual(body["error"]["message"], "the engine has stopped")
        self.assertEqual(ask(0)[0], 200)
        os.kill(pids[0], signal.SIGTERM)
        self.ended(server, pids)

    def test_grammars_are_kept_by_each_generation_server(self):
        one = Server("--max-seq-len", 1024)
        schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}}, "required": ["a"]}
        asked = [{"prompt": "An object: ", "max_tokens": 40, "temperature": 0.8, "seed": seed, **form}
                 for seed, form in ((1, {"guided_regex": "\\{[a-z]{3,9}\\}"}), (2, {"guided_json": schema}))]
        expected = [one.post("/v1/completions", **fields)[1]["choices"] for fields in asked]
        self.assertEqual(one.end(), 0)
        server, pids = self.serving(3, self.file(1, generation="num_instances: 2"))
        for fields, choices in zip(asked, expected):
            for _ in range(3):  # by turns, and one that the server has had
                self.assertEqual(server.post("/v1/completions", **fields)[1]["choices"], choices)
        server.wait_until(lambda: server.metric("handed_over_prompts_total") == 6, "what a server says of itself comes late")
        text = server.ask("GET", "/metrics")[2].decode()
        taken = dict(re.findall(r'^wideload_generation_handed_over_prompts_total{.*generation="(\d)"} (\d+)$', text, re.M))
        self.assertEqual(taken, {"0": "3", "1": "3"})
        os.kill(pids[0], signal.SIGTERM)
        self.assertEqual(self.ended(server, pids), 0, server.stderr())

    def test_what_a_dead_server_had_is_begun_anew(self):
        for victim, sides in ((1, {"generation": "max_batch_size: 16, num_instances: 2"}), (2, {"instances": 2})):
            with self.subTest(victim):
                server, pids = self.serving(3, self.file(**sides, retries=1))

                def ask(i):
                    return server.post("/v1/completions", prompt="The history of the " * 100, max_tokens=100, ignore_eos=True, seed=i // 2,
                                       temperature=0.8)
                with concurrent.futures.ThreadPoolExecutor(8) as pool:
                    os.kill(pids[victim], signal.SIGSTOP)  # so that what it has is not done before it dies
                    server.wait_until(lambda: has_stopped(pids[victim]), "all of its threads stand still")
                    asked = [pool.submit(ask, i) for i in range(8)]
                    server.wait_until(lambda: server.metric("handed_over_prompts_total") == 4, "the other one has its own")
                    os.kill(pids[victim], signal.SIGKILL)
                    found = [answer.result() for answer in asked]
                self.assertEqual([status for status, _ in found], [200] * 8, found)
                texts = [body["choices"][0]["text"] for _, body in found]
                self.assertEqual(texts[::2], texts[1::2])
                self.assertGreater(server.metric("retried_requests_total"), 0)
                os.kill(pids[0], signal.SIGTERM)
                self.ended(server, pids)

    def test_a_prompt_that_cannot_be_fetched_costs_its_request_alone(self):
        server, pids = self.serving(3, self.file(2, generation="max_batch_size: 2", transfer="network"))

        def ask(_):
            return server.post("/v1/completions", prompt="The history", max_tokens=40, ignore_eos=True)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            long = [pool.submit(lambda: server.post("/v1/completions", prompt="Once", max_tokens=900, ignore_eos=True))
                    for _ in range(2)]
            server.wait_until(lambda: server.metric("handed_over_prompts_total") == 2, "two prompts are handed over")
            asked = [pool.submit(ask, i) for i in range(4)]
            server.wait_until(lambda: server.metric("context_prompts_total") == 6, "the prompts are computed")
            os.kill(pids[1], signal.SIGKILL)
            found = [answer.result() for answer in asked]
            for answer in long:
                self.assertEqual(answer.result()[0], 200)
        self.assertEqual(sorted(status for status, _ in found), [200, 200, 500, 500])
        for status, body in found:
            if status == 500:
                self.assertIn("keys and values of the prompt could not be read: rank 0 of context server 0", body["error"]["message"])
        server.wait_until(lambda: server.metric("context_up") == 1, "the dead server is known")
        self.assertEqual(ask(0)[0], 200)
        os.kill(pids[0], signal.SIGTERM)
        self.ended(server, pids)

    def test_a_dead_generation_server_costs_the_requests_on_it(self):
        server, pids = self.serving(4, self.file(2, generation="num_instances: 2, max_batch_size: 16"))

        def ask(max_tokens):
            return server.post("/v1/completions", prompt="Once", max_tokens=max_tokens, ignore_eos=True, temperature=0)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, 900) for _ in range(4)]
            server.wait_until(lambda: server.metric("handed_over_prompts_total") == 4, "prompts are not handed over")
            os.kill(pids[1], signal.SIGKILL)
            found = [answer.result() for answer in asked]
        self.assertEqual(sorted(status for status, _ in found), [200, 200, 500, 500])
        for status, body in found:
            if status == 500:
                self.assertEqual(body["error"]["message"], "the engine has stopped")
        texts = {body["choices"][0]["text"] for status, body in found if status == 200}
        self.assertEqual({ask(900)[1]["choices"][0]["text"] for _ in range(2)}, texts)
        self.assertEqual(server.metric("generation_up"), 1)
        self.assertRegex(server.stderr(), "generation server 1 is gone")
        os.kill(pids[0], signal.SIGTERM)
        self.ended(server, pids)
        self.assertRegex(server.stderr(), "error: a generation server has ended before the others")

    def test_a_dead_front_door_ends_all(self):
        server, pids = self.serving(3, self.file(generation="num_instances: 2"))
        os.kill(pids[0], signal.SIGKILL)
        end = time.monotonic() + TIMEOUT_S
        while any(living(pid) for pid in pids[1:]) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids[1:] if living(pid)], [])
        self.assertRegex(server.stderr(), "the generation server, for which prompts are computed, is gone")
        self.assertRegex(server.stderr(), "the front door, for which requests are generated, is gone")

    def test_a_signal_to_a_context_server_ends_all_as_they_should(self):
        server, pids = self.serving(2, self.file())
        os.kill(pids[1], signal.SIGTERM)
        self.assertEqual(self.ended(server, pids), 0, server.stderr())

    def test_servers_of_several_hosts_send_what_they_cannot_share(self):
        apart = ("sh", "-c", 'WIDELOAD_HOST_ID=$OMPI_COMM_WORLD_RANK exec "$0" "$@"')
        server, pids = self.serving(2, self.file(), wrapper=apart)
        status, body = server.post("/v1/completions", prompt="Once", max_tokens=9, ignore_eos=True)
        self.assertEqual((status, body["usage"]["completion_tokens"]), (200, 9))
        server.wait_idle()
        self.assertGreater(server.metric("handed_over_bytes_total"), 0)
        os.kill(pids[0], signal.SIGTERM)
        self.assertEqual(self.ended(server, pids), 0, server.stderr())

    def refused(self, num_ranks, path, text, *flags):
        ranks = Ranks(self, num_ranks, ["serve", "disaggregated", "--config", path, *flags])
        self.assertEqual(ranks.end(), 2, ranks.stderr())
        self.assertEqual(ranks.stderr().count("wideload: error:"), 1, ranks.stderr())
        self.assertIn(text, ranks.stderr())

    def test_what_is_wrong_is_said_once(self):
        self.refused(3, self.file(), "has servers of 2 ranks in all (1 x 1 to generate, 1 x 1 for prompts), and 3 processes were started")
        self.refused(2, self.file(context="max_num_tokens: 64, model: /nowhere", generation="model: /nowhere"), "/nowhere")
        self.refused(2, self.file(transfer="rdma"), "kv_transfer is rdma; supported: auto, shared_memory, network")
        self.refused(2, self.file(), "--ssl-certfile", "--ssl-keyfile", "/nowhere")


if __name__ == "__main__":
    unittest.main()
