"""wideload between hosts: conformance and exchange tests, programs and SLURM on hosts made of namespaces. Run by ./dev test-cluster.

Needs root, and minutes: not part of ./dev test.
"""
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from hosts import Cluster  # noqa: E402
from slurm import Slurm  # noqa: E402

SOURCE = pathlib.Path(os.environ["WIDELOAD_SOURCE_DIR"])
BIN = pathlib.Path(os.environ.get("WIDELOAD_BIN", SOURCE / "build/release/bin"))


class OnHosts(unittest.TestCase):
    """Makes the cluster of a class once; HOSTS x RANKS."""

    HOSTS, RANKS = 2, 2

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="wideload-cluster.")
        cls.addClassCleanup(folder.cleanup)
        cls.cluster = Cluster(cls.HOSTS, folder.name)
        cls.addClassCleanup(cls.cluster.close)
        cls.folder = pathlib.Path(folder.name)

    def run_ranks(self, *command, variables=(), options=(), expected=0, timeout=300):
        code, output = self.cluster.mpirun(self.RANKS, [str(word) for word in command],
                                           [f"WIDELOAD_SOURCE_DIR={SOURCE}", f"WIDELOAD_TEST_FOLDER={self.folder}", *variables],
                                           options, timeout)
        self.assertEqual(code, expected, output[-4000:])
        self.assertEqual(self.cluster.leftovers(), [])
        return output


class Program:
    """`wideload bench throughput` and `logits` of one model: commands, and what one process of 8 threads as ranks and one of one
    rank write."""

    MODEL = SOURCE / "testdata/models/tiny-qwen3-moe"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.rows = self.folder / "rows.jsonl"
        self.rows.write_text("".join(json.dumps({
            "task_id": i, "input_ids": [1 + (i * 37 + j * 11) % 300 for j in range(1 + i * 13 % 90)],
            "output_tokens": 1 + i * 5 % 12}) + "\n" for i in range(24)))
        self.ids = self.folder / "ids.json"
        self.ids.write_text(json.dumps([[1 + (i * 29 + j * 3) % 300 for j in range(1 + i * 23)] for i in range(4)]))

    def commands(self, name):
        common = ["-m", str(self.MODEL), "--threads", "1", "--output"]
        return [["bench", "throughput", "--dataset", str(self.rows), "--concurrency", "16", "--max-num-tokens", "64", *common,
                 str(self.folder / f"bench-{name}")],
                ["logits", "--input-ids", str(self.ids), *common, str(self.folder / f"logits-{name}")]]

    def run_in_one_process(self, name, *options):
        for command in self.commands(name):
            subprocess.run([BIN / "wideload", *command, *options], check=True, capture_output=True, timeout=200)

    def files(self, name):
        return [(self.folder / f"{what}-{name}").read_bytes() for what in ("bench", "logits")]


class SameFiles:
    """What the program writes on the hosts of a class."""

    def test_the_program_writes_the_files_of_8_threads_and_of_one_rank(self):
        program = Program(self.folder)
        program.run_in_one_process("one")
        program.run_in_one_process("threads", "--ep", "8")
        for name, variables in (("hosts", []), ("late", ["WIDELOAD_FABRIC_DELAY_US=500"])):
            for command in program.commands(name):
                output = self.run_ranks(BIN / "wideload", *command, variables=variables)
                self.assertIn(f"shared memory within {self.HOSTS} hosts, MPI between them", output)
            self.assertEqual(program.files(name), program.files("one"), name)
        self.assertEqual(program.files("threads"), program.files("one"))
        self.assertGreater(len(program.files("one")[0]), 1000)


class TwoHosts(SameFiles, OnHosts):
    def test_communicators_conform(self):
        self.run_ranks(BIN / "communicator_mpi_conformance_test", "--gtest_brief=1")

    def test_fabrics_conform(self):
        self.run_ranks(BIN / "fabric_mpi_conformance_test", "--gtest_brief=1")

    def test_the_exchange_gives_the_bits_of_one_loop(self):
        self.run_ranks(BIN / "exchange_mpi_test", "--gtest_brief=1")

    def test_the_exchange_gives_the_bits_of_one_loop_on_a_slow_network_that_loses_packets(self):
        self.cluster.limit_rate(1000)
        self.cluster.lose(5)
        try:
            self.run_ranks(BIN / "exchange_mpi_test", "--gtest_brief=1", "--gtest_filter=*Large*:*AnyBuffers*")
            self.assertGreater(self.cluster.lost_packets(), 0)
        finally:
            self.cluster.unlimit_rate()
            self.cluster.lose_nothing()


class DeadRanks(OnHosts):
    """One rank per host, so that nobody sees the process that dies; mpirun is told to leave the others to themselves."""

    HOSTS, RANKS = 3, 1

    def run_dead_rank(self, *arguments):
        code, output = self.cluster.mpirun(self.RANKS, [BIN / "dead_rank", *map(str, arguments)],
                                           [f"WIDELOAD_SOURCE_DIR={SOURCE}"], ["--enable-recovery"], timeout=200)
        said = {int(rank): (float(at), text) for rank, at, text in re.findall(r"rank (\d) at ([\d.]+): (.*)", output)}
        self.assertEqual(self.cluster.leftovers(), [])
        return code, said, output

    def test_the_others_name_a_killed_rank_within_5_seconds(self):
        choose = random.Random(20261122)
        for _ in range(4):
            victim, call = choose.randrange(3), choose.randrange(400)
            with self.subTest(victim=victim, call=call):
                _, said, output = self.run_dead_rank(victim, call)
                self.assertEqual(set(said), {0, 1, 2}, output)
                died_at = said.pop(victim)[0]
                for at, text in said.values():
                    self.assertRegex(text, rf"rank {victim}(: it)? is dead")
                    self.assertRegex(text, r"iteration 1, layer \d+: waited for (the (counts|rows|results) of round \d+|messages)")
                    self.assertLess(at - died_at, 5)

    def test_a_stop_of_3_seconds_is_survived(self):
        code, said, output = self.run_dead_rank(1, 100, "stop", 3)
        self.assertEqual(code, 0, output)
        self.assertEqual({text for _, text in said.values()}, {"came to the end"}, output)


class KilledRank:
    """The program on the hosts of a class, one rank of which is killed."""

    # mpirun itself ends all ranks one second after a death: too early for those that hear of it by silence alone.
    # Told to leave them alone it ends with 0 whatever they do: then each rank's shell says its exit code.
    HAS_RECOVERY = False
    LIMIT_S = 5

    def kill(self, victim, command, when):
        """Kills a rank when `when(output, its pid)` is true; all ranks must have ended soon after. Returns the output."""
        program = (BIN / "wideload").resolve()
        num_ranks = self.HOSTS * self.RANKS
        killed = {}

        def meanwhile(output):
            end = time.monotonic() + 60
            ranks = {}
            while len(ranks) < num_ranks and time.monotonic() < end:
                ranks = self.cluster.ranks(program)
            while not when(output.read_text(errors="replace"), ranks[victim]):
                self.assertLess(time.monotonic(), end, output.read_text(errors="replace")[-3000:])
                time.sleep(0.001)
            os.kill(ranks[victim], signal.SIGKILL)
            killed["at"] = time.monotonic()
            while self.cluster.ranks(program) and time.monotonic() < end:
                time.sleep(0.02)
            killed["end"] = time.monotonic()

        script = self.folder / "say_code"
        script.write_text('#!/bin/sh\n"$@"\necho "exit code $?"\n')
        script.chmod(0o755)
        words = [script] * self.HAS_RECOVERY + [program, *command]
        code, output = self.cluster.mpirun(self.RANKS, [str(word) for word in words], [f"WIDELOAD_SOURCE_DIR={SOURCE}"],
                                           ["--enable-recovery"] * self.HAS_RECOVERY, 90, meanwhile)
        self.assertEqual(self.cluster.leftovers(), [], output[-3000:])
        if self.HAS_RECOVERY:
            self.assertEqual(sorted(re.findall(r"exit code (\d+)", output)), ["1"] * (self.HOSTS * self.RANKS - 1) + ["137"], output)
        else:
            self.assertNotEqual(code, 0, output[-3000:])
        self.assertLess(killed["end"] - killed["at"], self.LIMIT_S, output[-3000:])
        return output

    def test_the_others_name_a_rank_that_is_killed_while_they_serve(self):
        rows = self.folder / "long.jsonl"
        rows.write_text("".join(json.dumps({"task_id": i, "input_ids": [1 + i % 300], "output_tokens": 400}) + "\n" for i in range(4000)))
        command = ["bench", "throughput", "-m", Program.MODEL, "--dataset", rows, "--concurrency", "64", "--threads", "1"]
        for victim in (self.HOSTS * self.RANKS - 1, 0):
            with self.subTest(victim=victim):
                began = []

                def is_serving(output, _):
                    if "MPI between" in output and not began:
                        began.append(time.monotonic())
                    return bool(began) and time.monotonic() - began[0] > 0.5
                output = self.kill(victim, command, is_serving)
                self.assertRegex(output, rf"iteration \d+, layer \d+: waited for .*rank {victim}(: it)? is dead")

    def test_the_others_name_a_rank_that_is_killed_while_weights_load(self):
        command = ["generate", "-p", "Once upon a time", "-n", "4", "--threads", "1"]
        for victim in (self.HOSTS * self.RANKS - 1, 0):
            with self.subTest(victim=victim):
                def is_loading(output, pid):
                    """The rank goes no further, and the others wait for it."""
                    if "loading weights" not in output:
                        return False
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.3)
                    return True
                output = self.kill(victim, command, is_loading)
                self.assertNotIn("MPI between", output)
                self.assertRegex(output, rf"rank {victim}(: it)? is dead")


class KilledRankOfTwoHosts(KilledRank, OnHosts):
    RANKS = 1
    HAS_RECOVERY = True


class KilledRankOfTwoByTwo(KilledRank, OnHosts):
    pass


class FourHosts(SameFiles, OnHosts):
    HOSTS = 4

    def test_fabrics_conform(self):
        self.run_ranks(BIN / "fabric_mpi_conformance_test", "--gtest_brief=1")

    def test_the_exchange_gives_the_bits_of_one_loop(self):
        self.run_ranks(BIN / "exchange_mpi_test", "--gtest_brief=1")


class PrefillOnAnotherHost(OnHosts):
    """The generation server's two ranks on the first host, two context servers on the second."""

    FILE = ("hostname: 0.0.0.0\nport: 8126\nthreads: 1\nmax_seq_len: 1024\ncontext_servers: {num_instances: 2}\n"
            "generation_servers: {tensor_parallel_size: 2, max_batch_size: 2}\n")

    def ask(self, max_tokens=20, prompt="The history of the " * 30):
        """(status, body) as a client on the other host sees it."""
        body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "logprobs": 1})
        found = self.cluster.hosts[1].run(["curl", "-s", "-w", "\n%{http_code}", f"http://{self.cluster.hosts[0].address}:8126/v1/completions",
                                           "-H", "Content-Type: application/json", "-d", body])
        text, status = found.rsplit("\n", 1)
        return int(status), json.loads(text)

    def await_text(self, path, text):
        end = time.monotonic() + 60
        while text not in path.read_text(errors="replace"):
            self.assertLess(time.monotonic(), end, path.read_text(errors="replace"))
            time.sleep(0.05)

    def serve(self, meanwhile, variables=()):
        sides = self.folder / "sides.yaml"
        sides.write_text(self.FILE)
        found = {}

        def ask(output):
            self.await_text(output, "on http://0.0.0.0:8126")
            found["ranks"] = self.cluster.ranks(BIN / "wideload")
            meanwhile(found["ranks"], output)
            os.kill(found["ranks"][0], signal.SIGTERM)
        code, output = self.cluster.mpirun(self.RANKS, [BIN / "wideload", "serve", "disaggregated", "--config", sides], variables,
                                           ["--enable-recovery"], meanwhile=ask)
        self.assertEqual(self.cluster.leftovers(), [])
        return code, output

    def test_answers_are_those_of_one_process(self):
        sides = self.folder / "alone.yaml"
        sides.write_text(self.FILE)
        log = open(self.folder / "alone.log", "w", encoding="utf-8")
        alone = subprocess.Popen([*self.cluster.hosts[0].enter, BIN / "wideload", "serve", "disaggregated", "--config", sides],
                                 stdout=log, stderr=log)
        self.addCleanup(log.close)
        self.addCleanup(alone.kill)
        self.await_text(self.folder / "alone.log", "on http://0.0.0.0:8126")
        expected = [self.ask()[1]["choices"], self.ask(9, "Once")[1]["choices"]]
        alone.terminate()
        self.assertEqual(alone.wait(30), 0)
        found = []
        code, output = self.serve(lambda *_: found.extend([self.ask()[1]["choices"], self.ask(9, "Once")[1]["choices"]]))
        self.assertEqual(code, 0, output[-3000:])
        self.assertEqual(found, expected)


class PrefillOnTwoOtherHosts(PrefillOnAnotherHost):
    """One rank per host: with several of them mpirun stays after the last one, when one of them was killed."""

    HOSTS, RANKS = 3, 1
    FILE = PrefillOnAnotherHost.FILE.replace("tensor_parallel_size: 2, ", "")

    def test_a_killed_context_server_costs_no_other_request(self):
        found = []

        def kill_one(ranks, output):
            os.kill(ranks[1], signal.SIGKILL)
            self.await_text(output, "context server 0 is gone")
            found.extend(self.ask()[0] for _ in range(3))
        _, output = self.serve(kill_one)
        self.assertEqual(found, [200, 200, 200], output[-3000:])


class UnderSlurm(OnHosts):
    """slurmctld, slurmd and munge of Debian; PMIx brings the ranks together."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.slurm = Slurm(cls.cluster)
        cls.addClassCleanup(cls.slurm.close)

    def variables(self, *more):
        return [f"WIDELOAD_SOURCE_DIR={SOURCE}", f"WIDELOAD_TEST_FOLDER={self.folder}", *more]

    def test_srun_starts_ranks_that_exchange_between_hosts(self):
        code, output = self.slurm.run(["srun", "-N2", "-n4", "--ntasks-per-node=2", "--mpi=pmix", BIN / "exchange_mpi_test",
                                       "--gtest_brief=1"], self.variables())
        self.assertEqual(code, 0, output[-3000:])
        self.assertEqual(output.count("PASSED"), 4, output[-3000:])
        self.assertEqual(self.cluster.leftovers(), [])

    def test_the_batch_file_runs_the_program_on_all_nodes(self):
        program = Program(self.folder)
        program.run_in_one_process("one")
        for command in program.commands("slurm"):
            code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch", command, ["--nodes=2", "--ntasks-per-node=2"],
                                             self.variables(f"WIDELOAD={BIN}/wideload"))
            self.assertEqual(code, 0, output[-3000:])
            self.assertIn("MPI between them", output)
        self.assertEqual(program.files("slurm"), program.files("one"))

    def test_the_batch_file_runs_ranks_of_all_nodes(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch", ["--gtest_brief=1"], ["--nodes=2"],
                                         self.variables(f"WIDELOAD={BIN}/exchange_mpi_test", "WORKER_ENV_VAR=A=1 B=2"))
        self.assertEqual(code, 0, output[-3000:])
        self.assertEqual({line.split(":")[0] for line in output.splitlines() if "PASSED" in line}, {"0", "1", "2", "3"})

    def test_the_batch_file_says_what_it_needs(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch")
        self.assertEqual((code, output.strip()), (2, "wideload.sbatch: say what to run, such as: bench throughput --model DIR --dataset FILE"))

    def benchmark(self, logs, *arguments, variables=()):
        rows = Program(self.folder).rows
        return self.slurm.sbatch(SOURCE / "deploy/slurm/benchmark.sbatch", arguments, ["--nodes=2", "--ntasks-per-node=2", "--time=10"],
                                 self.variables(f"WIDELOAD={BIN}/wideload", f"LOGS={logs}", "CONCURRENCIES=1 4", "PORT=8123",
                                                f"LOAD=--dataset-name custom --dataset-path {rows} --num-prompts 8", *variables))

    def test_a_server_is_measured_and_ended_and_nothing_in_the_folder_is_lost(self):
        logs = self.folder / "logs"
        logs.mkdir()
        (logs / "before.txt").write_text("kept")
        code, output = self.benchmark(logs, "--threads", "1")
        self.assertEqual(code, 0, output[-3000:])
        self.assertEqual((logs / "before.txt").read_text(), "kept")
        reports = [json.loads(path.read_text()) for path in sorted(logs.glob("*-concurrency-*.json"))]
        self.assertEqual([(report["max_concurrency"], report["completed"]) for report in reports], [(1, 8), (4, 8)])
        self.assertIn("MPI between them", next(logs.glob("*-server.log")).read_text())
        self.assertEqual(self.cluster.leftovers(), [])

    def test_a_server_that_does_not_start_ends_the_benchmark_with_its_words(self):
        code, output = self.benchmark(self.folder / "failed", "--model", str(self.folder / "none"))
        self.assertNotEqual(code, 0)
        self.assertIn("none", output)
        self.assertIn("the load could not be run", output)

    def test_the_batch_file_says_where_a_server_listens(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch",
                                         ["serve", "--model", str(self.folder / "none"), "--port", "8124", "--host=0.0.0.0"],
                                         ["--nodes=1", "--ntasks-per-node=1"], self.variables(f"WIDELOAD={BIN}/wideload"))
        self.assertNotEqual(code, 0)
        self.assertRegex(output, r"wideload.sbatch: http://[^:]+:8124\n")

    def test_prefill_and_decode_apart_answer_within_a_job(self):
        self.answers_apart([])

    def test_prefill_and_decode_apart_answer_as_tasks_of_a_job(self):
        self.answers_apart(["--nodes=1", "--ntasks=3"])

    def test_prefill_and_decode_apart_answer_as_tasks_on_two_nodes(self):
        self.answers_apart(["--nodes=2", "--ntasks=3"])
        self.assertEqual(self.cluster.leftovers(), [])

    def answers_apart(self, options):
        sides = self.folder / "sides.yaml"
        sides.write_text("hostname: 127.0.0.1\nport: 8125\nthreads: 1\nmax_seq_len: 512\ncontext_servers: {}\n"
                         "generation_servers: {tensor_parallel_size: 2, enable_attention_dp: true}\n")
        asks = self.folder / "asks.sh"
        asks.write_text(f"""#!/bin/bash
            if ((${{SLURM_NTASKS:-1}} > 1 && SLURM_PROCID > 0)); then exec {BIN}/wideload "$@"; fi
            {BIN}/wideload "$@" 2>{self.folder}/server.log &
            until grep -q serving {self.folder}/server.log; do sleep 0.1; kill -0 $! || exit 3; done
            curl -s 127.0.0.1:8125/v1/completions -d '{{"prompt": "Once", "max_tokens": 5, "ignore_eos": true}}'
            kill -TERM $!
            wait $!""")
        asks.chmod(0o755)
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/disaggregated.sbatch", [sides], options,
                                         variables=self.variables(f"WIDELOAD={asks}"))
        self.assertEqual(code, 0, output[-3000:])
        self.assertIn('"completion_tokens":5', output.replace(" ", ""))

    def test_a_rank_that_fails_ends_the_job_with_an_error(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch", ["-c", "test $SLURM_PROCID != 3 || exit 7; sleep 60"],
                                         variables=self.variables("WIDELOAD=/bin/sh"), timeout=40)
        self.assertNotEqual(code, 0, output)


class Figures:
    """Prints figures and compares nothing but that there are some: this machine is not a network."""

    RATES = (0,)  # Mbit/s, 0: no limit

    def test_the_exchange_against_mpi_alltoallv(self):
        for rate in self.RATES:
            if rate:
                self.cluster.limit_rate(rate)
            output = self.run_ranks(BIN / "bench_exchange_processes", "--pairs", 9, "--batch-ms", 30)
            print(f"\n{self.HOSTS} hosts x {self.RANKS}, {f'{rate} Mbit/s' if rate else 'no limit'}\n{output}", file=sys.stderr)
            self.assertEqual(output.count("dispatch + return"), 2)


class Speed(Figures, OnHosts):
    RANKS = 1
    RATES = (0, 1000)


class SpeedTwoByTwo(Figures, OnHosts):
    pass


class SpeedFourByTwo(Figures, OnHosts):
    HOSTS = 4


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which unittest does not take for a failed test
    unittest.main()
