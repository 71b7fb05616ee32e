"""wideload between hosts: conformance and exchange tests, programs and SLURM on hosts made of namespaces. Run by ./dev test-cluster.

Needs root, and minutes: not part of ./dev test.
"""
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
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


class TwoHosts(OnHosts):
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
                                           [f"WIDELOAD_SOURCE_DIR={SOURCE}"], ["--enable-recovery"], timeout=60)
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
                    self.assertIn(f"of rank {victim}: it is dead", text)
                    self.assertRegex(text, r"iteration 1, layer \d+: waited for the (counts|rows|results) of round \d+")
                    self.assertLess(at - died_at, 5)

    def test_a_stop_of_3_seconds_is_survived(self):
        code, said, output = self.run_dead_rank(1, 100, "stop", 3)
        self.assertEqual(code, 0, output)
        self.assertEqual({text for _, text in said.values()}, {"came to the end"}, output)


class FourHosts(OnHosts):
    HOSTS = 4

    def test_fabrics_conform(self):
        self.run_ranks(BIN / "fabric_mpi_conformance_test", "--gtest_brief=1")

    def test_the_exchange_gives_the_bits_of_one_loop(self):
        self.run_ranks(BIN / "exchange_mpi_test", "--gtest_brief=1")


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

    def test_the_batch_file_runs_ranks_of_all_nodes(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch", ["--gtest_brief=1"], ["--nodes=2"],
                                         self.variables(f"WIDELOAD={BIN}/exchange_mpi_test", "WORKER_ENV_VAR=A=1 B=2"))
        self.assertEqual(code, 0, output[-3000:])
        self.assertEqual({line.split(":")[0] for line in output.splitlines() if "PASSED" in line}, {"0", "1", "2", "3"})

    def test_the_batch_file_says_what_it_needs(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch")
        self.assertEqual((code, output.strip()), (2, "wideload.sbatch: say what to run, such as: bench throughput --model DIR --dataset FILE"))

    def test_a_rank_that_fails_ends_the_job_with_an_error(self):
        code, output = self.slurm.sbatch(SOURCE / "deploy/slurm/wideload.sbatch", ["-c", "test $SLURM_PROCID != 3 || exit 7; sleep 60"],
                                         variables=self.variables("WIDELOAD=/bin/sh"), timeout=40)
        self.assertNotEqual(code, 0, output)


class Speed(OnHosts):
    """Prints figures and compares nothing but that there are some: this machine is not a network."""

    RANKS = 1

    def test_the_exchange_against_mpi_alltoallv(self):
        for rate in (0, 1000):
            if rate:
                self.cluster.limit_rate(rate)
            output = self.run_ranks(BIN / "bench_exchange_processes", "--pairs", 9, "--batch-ms", 30)
            print(f"\n2 hosts, {f'{rate} Mbit/s' if rate else 'no limit'}\n{output}", file=sys.stderr)
            self.assertEqual(output.count("dispatch + return"), 2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which unittest does not take for a failed test
    unittest.main()
