#!/usr/bin/env python3
"""The program started as several processes by mpirun: same results as threads, one voice, refusals by name, faults.
Usage: program_processes_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

from cli_support import EMBEDDED, PROGRAM, STARTED, TIMEOUT_S, TINY, CliTest, run  # noqa: E402

MPIRUN = os.environ.get("WIDELOAD_MPIRUN", "mpirun")
SHM = pathlib.Path("/dev/shm")
STORE = f"store_of_test_{os.getpid()}"  # other runs on this machine share experts, too
ENVIRONMENT = {**os.environ, "TRTLLM_EPLB_SHM_NAME": STORE, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
               "OMPI_MCA_mpi_yield_when_idle": "1"}


def segments(leader=""):
    """Names of the shared memory of runs of several processes, or of the run of that rank 0."""
    return sorted(p.name for p in SHM.iterdir() if p.name.startswith((f"wideload.run-{leader}", STORE)))


def living(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Ranks:
    """A run of N processes that is under way."""

    def __init__(self, test, num_ranks, args, stdin=subprocess.DEVNULL, mpirun=None):
        self.test = test
        self.out, self.err = test.path("ranks.out"), test.path("ranks.err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            mpirun = mpirun or [MPIRUN, "-n", str(num_ranks), str(PROGRAM)]
            self.mpirun = subprocess.Popen([*mpirun, *map(str, args)], stdout=out, stderr=err, stdin=stdin, env=ENVIRONMENT)
        self.num_ranks = num_ranks
        test.addCleanup(self.clean_up)

    def pids(self):
        """The process of each rank, once all are there."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end and self.mpirun.poll() is None:
            found = {}
            for entry in pathlib.Path("/proc").iterdir():
                try:
                    if not entry.name.isdigit() or pathlib.Path(os.readlink(entry / "exe")) != PROGRAM:
                        continue
                    environ = dict(v.split(b"=", 1) for v in (entry / "environ").read_bytes().split(b"\0") if b"=" in v)
                    if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == self.mpirun.pid:
                        found[int(environ[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
                except (OSError, KeyError):
                    continue
            if len(found) == self.num_ranks:
                return [found[r] for r in range(self.num_ranks)]
            time.sleep(0.01)
        self.test.fail(f"the ranks did not start: {self.stderr()}")

    def stderr(self):
        return self.err.read_text()

    def wait_for(self, text, file=None):
        end = time.monotonic() + TIMEOUT_S
        while text not in (file or self.err).read_text():
            if self.mpirun.poll() is not None or time.monotonic() > end:
                self.test.fail(f"no {text!r}: {self.stderr()}")
            time.sleep(0.01)

    def end(self, timeout=TIMEOUT_S):
        return self.mpirun.wait(timeout)

    def clean_up(self):
        if self.mpirun.poll() is None:
            self.mpirun.kill()
            self.mpirun.wait()


class ProcessesTest(CliTest):
    def ranks(self, num_ranks, *args, stdin=""):
        return subprocess.run([MPIRUN, "-n", str(num_ranks), str(PROGRAM), *map(str, args)], input=stdin,
                              capture_output=True, text=True, env=ENVIRONMENT, timeout=TIMEOUT_S)

    def good_ranks(self, num_ranks, *args, **kwargs):
        done = self.ranks(num_ranks, *args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def dataset(self, num_rows=24, output_tokens=12):
        """Requests of many lengths; one starts while others decode, some prompts take several iterations."""
        return self.rows("rows.jsonl", [
            {"task_id": i, "input_ids": [1 + (i * 37 + j * 11) % 300 for j in range(1 + i * 13 % 90)],
             "output_tokens": 1 + (i * 5) % output_tokens} for i in range(num_rows)])

    def bench(self, *more, num_rows=24):
        return ["bench", "throughput", "-m", TINY, "--dataset", self.dataset(num_rows), "--concurrency", "16",
                "--max-num-tokens", "64", "--threads", "1", *more]

    def long_run(self, *more):
        """A run that does not end by itself while a test looks at it."""
        rows = self.rows("long.jsonl", [{"task_id": i, "input_ids": [1 + i % 300], "output_tokens": 400} for i in range(4000)])
        return ["bench", "throughput", "-m", TINY, "--dataset", rows, "--concurrency", "64", "--threads", "1", *more]


class SameResults(ProcessesTest):
    def test_bench_gives_the_same_file_as_threads_and_one_rank(self):
        def flags(name):
            return self.bench("--output", self.path(name), "--temperature", "0.8", "--seed", "3")
        self.good(*flags("one"))
        self.good(*flags("threads"), "--ep", "8")
        self.good_ranks(8, *flags("processes"))
        self.good_ranks(2, *flags("two"), "--ep", "2", "--placement", "random:5", "--moe-max-num-tokens", "32")
        experts = self.path("experts")
        self.good_ranks(2, *flags("packing"), "--weight-file", experts)
        self.good_ranks(4, *flags("packed"), "--weight-file", experts, "--rebalance", "random:1")
        self.good_ranks(2, *flags("pages"), "--weight-huge-pages", "--weight-numa", "interleave")
        one = self.path("one").read_bytes()
        self.assertGreater(len(one), 1000)
        for name in ("threads", "processes", "two", "packing", "packed", "pages"):
            self.assertEqual(self.path(name).read_bytes(), one, name)

    def test_preempted_requests_give_the_same_file(self):
        def flags(name):
            return self.bench("--output", self.path(name), "--kv-cache-memory", "150K", "--max-seq-len", "128")
        self.good(*flags("one"), "--ep", "1")
        self.good_ranks(4, *flags("processes"))
        self.assertEqual(self.path("processes").read_bytes(), self.path("one").read_bytes())

    def test_logits_are_the_same_file(self):
        ids = self.path("ids.json", [[1 + (i * 29 + j * 3) % 300 for j in range(1 + i * 23)] for i in range(6)])
        args = ["logits", "-m", TINY, "--input-ids", ids, "--threads", "1", "--output"]
        self.good(*args, self.path("one"))
        self.good_ranks(8, *args, self.path("processes"))
        self.assertEqual(self.path("processes").read_bytes(), self.path("one").read_bytes())

    def test_ranks_that_share_attention_give_the_same_files(self):
        def flags(name):
            return self.bench("--output", self.path(name), "--rebalance", "random:3")
        self.good(*self.bench("--output", self.path("one")))
        self.good(*flags("threads"), "--tp", "2", "--dp", "2")
        started = self.good_ranks(4, *flags("processes"), "--tp", "2")
        self.assertIn("4 ranks that share attention by 2 x 1 threads in processes", started.stderr)
        self.good_ranks(3, *self.bench("--output", self.path("three")), "--tp", "3", "--num-slots", "18")
        self.good_hosts(2, 2, *flags("hosts"), "--tp", "4")
        for name in ("threads", "processes", "three", "hosts"):
            self.assertEqual(self.path(name).read_bytes(), self.path("one").read_bytes(), name)

    def test_ranks_that_share_a_context_give_the_same_files(self):
        ids = self.path("ids.json", [[1 + (i * 29 + j * 3) % 300 for j in range(3 + i * 70)] for i in range(4)])
        args = ["logits", "-m", TINY, "--input-ids", ids, "--threads", "1", "--output"]
        self.good(*args, self.path("one"))
        started = self.good_ranks(4, *args, self.path("processes"), "--cp", "2", "--tp", "2")
        self.assertIn("4 ranks that share attention by 2 and contexts by 2 x 1 threads in processes", started.stderr)
        self.good_hosts(2, 2, *args, self.path("hosts"), "--cp", "4")
        for name in ("processes", "hosts"):
            self.assertEqual(self.path(name).read_bytes(), self.path("one").read_bytes(), name)

    @staticmethod
    def on_hosts(hosts, ranks_per_host, *args):
        """The command of processes of this machine that treat each other as other hosts."""
        command = [MPIRUN]
        for host in range(hosts):
            command += [*([":"] if host else []), "-n", str(ranks_per_host), "-x", f"WIDELOAD_HOST_ID=h{host}", str(PROGRAM),
                        *map(str, args)]
        return command

    def good_hosts(self, hosts, ranks_per_host, *args):
        command = self.on_hosts(hosts, ranks_per_host, *args)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENVIRONMENT,
                              timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, f"between {'them' if ranks_per_host > 1 else '2 hosts'}")
        return done

    def test_hosts_give_the_same_files(self):
        ids = self.path("ids.json", [[1 + (i * 29 + j * 3) % 300 for j in range(1 + i * 23)] for i in range(4)])
        logits = ["logits", "-m", TINY, "--input-ids", ids, "--threads", "1", "--output"]
        self.good(*logits, self.path("logits-one"))
        self.good(*self.bench("--output", self.path("bench-one")))
        for hosts, ranks_per_host in ((2, 1), (2, 2), (4, 2)):
            with self.subTest((hosts, ranks_per_host)):
                name = f"{hosts}x{ranks_per_host}"
                self.good_hosts(hosts, ranks_per_host, *logits, self.path(f"logits-{name}"))
                self.good_hosts(hosts, ranks_per_host, *self.bench("--output", self.path(f"bench-{name}")))
                for what in ("logits", "bench"):
                    self.assertEqual(self.path(f"{what}-{name}").read_bytes(), self.path(f"{what}-one").read_bytes())

    def test_stages_give_the_same_files_and_a_host_loads_those_of_its_ranks(self):
        def weights_kib(done):
            number, unit = re.search(r"weights ([\d.]+) ([KM])iB", done.stderr).groups()
            return float(number) * (1024 if unit == "M" else 1)

        def bench(name):
            return self.bench("--output", self.path(name), num_rows=8)
        flags = ("--kernels", "avx2")
        whole = self.good(*bench("one"), *flags)
        stage = ("--pp", "2", "--pp-partition", "1,3", "--rebalance", "random:3", *flags)
        counts = ("--expert-statistic-path", self.path("counts"))
        self.good_ranks(4, *bench("processes"), *stage, *counts)
        two = self.good_hosts(2, 2, *bench("hosts"), *stage, "--slot-storage", "copy")
        self.assertLess(weights_kib(two), weights_kib(whole) / 2)  # of one layer of four, and the embedding
        in_file = self.good_hosts(2, 2, *bench("file"), *stage, "--weight-file", self.path("experts"))
        self.assertEqual(weights_kib(in_file), weights_kib(two))
        for name in ("processes", "hosts", "file"):
            self.assertEqual(self.path(name).read_bytes(), self.path("one").read_bytes(), name)
        self.good("eplb", "plan", "--expert_statistic_path", self.path("counts"), "--num_slots", "18", "--output_path",
                  self.path("plan"))  # for --ep 2, as it was recorded

    def test_hosts_wait_for_a_person(self):
        """For longer than the silence after which a rank of another host is dead."""
        command = self.on_hosts(2, 2, "chat", "-n", "8", "--threads", "1")
        chat = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=ENVIRONMENT)
        self.addCleanup(chat.kill)
        time.sleep(6)
        stdout, stderr = chat.communicate("Hello\n", TIMEOUT_S)
        self.assertEqual(chat.returncode, 0, stderr)
        self.assertEqual(stdout, self.good("chat", "-n", "8", "--threads", "1", stdin="Hello\n").stdout)

    def test_statistics_of_all_ranks_are_those_of_threads(self):
        self.good(*self.bench("--ep", "4", "--expert-statistic-path", self.folder / "threads"))
        self.good_ranks(4, *self.bench("--expert-statistic-path", self.folder / "processes"))
        names = sorted(p.name for p in (self.folder / "threads").iterdir())
        self.assertEqual(names, ["meta_info.json", *(f"rank{r}.safetensors" for r in range(4))])
        for name in names:
            self.assertEqual((self.folder / "processes" / name).read_bytes(), (self.folder / "threads" / name).read_bytes())

    def test_generate_with_logprobs(self):
        args = ["generate", "-m", EMBEDDED, "-p", "Once upon a time", "-n", "12", "--logprobs", "2", "--json"]
        self.assertEqual(self.good_ranks(4, *args).stdout, self.good(*args).stdout)

    def test_chat_reads_from_rank_0(self):
        args = ["chat", "-n", "8", "--threads", "1"]
        lines = "Hello\nAnd then?\n"
        self.assertEqual(self.good_ranks(2, *args, stdin=lines).stdout, self.good(*args, stdin=lines).stdout)

    def test_one_process_has_threads(self):
        args = ["generate", "-p", "Once upon a time", "-n", "4", "--threads", "1"]
        self.assertEqual(self.good_ranks(1, *args, "--ep", "2").stdout, self.good(*args).stdout)


class OneVoice(ProcessesTest):
    def test_only_rank_0_reports(self):
        done = self.good_ranks(4, *self.bench("--report-json", self.path("report.json")))
        self.assertEqual(done.stdout.count("output tokens/s"), 1)
        self.assertEqual(done.stderr.count(STARTED), 1)
        report = json.loads(self.path("report.json").read_text())
        self.assertEqual(report["world_info"]["ep_size"], 4)
        self.assertGreater(report["exchange"]["rows"], 0)

    def refused_ranks(self, num_ranks, args, *found):
        done = self.ranks(num_ranks, *args)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(re.findall("wideload: error", done.stderr)), 1, done.stderr)
        self.assertNotIn(STARTED, done.stderr)
        for regex in found:
            self.assertRegex(done.stderr, regex)

    def test_refusals_are_said_once_and_end_all(self):
        self.refused_ranks(4, ["bench", "throughput", "-m", TINY, "--dataset", self.folder / "none"], "none")
        self.refused_ranks(4, ["generate", "-m", self.folder / "nowhere", "-p", "x"], "nowhere")
        self.refused_ranks(3, [*self.bench("--ep", "8")], "--ep is 8; 3 processes")
        self.refused_ranks(3, [*self.bench("--tp", "2")], "--tp is 2; 3 processes")
        self.refused_ranks(8, [*self.bench("--tp", "8")], "tensor_parallel_size is 8; .* 4 attention heads")
        self.refused_ranks(2, ["generate", "-p", "x", "--temperature", "-1"], "temperature is -1")
        self.refused_ranks(2, ["generate", "-p", "x", "--nonsense"], "--nonsense")
        self.refused_ranks(3, self.bench(), "16.*multiple of 3")

    def pair(self, first, second):
        """Rank 0 has other arguments than rank 1."""
        return subprocess.run([MPIRUN, "-n", "1", str(PROGRAM), *map(str, first), ":", "-n", "1", str(PROGRAM),
                               *map(str, second)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=ENVIRONMENT, timeout=TIMEOUT_S)

    def assert_refused_once(self, done, *found):
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(re.findall("wideload: error", done.stderr)), 1, done.stderr)
        for regex in found:
            self.assertRegex(done.stderr, regex)

    def refused_pair(self, first, second, *found):
        self.assert_refused_once(self.pair(first, second), *found)

    def test_a_rank_that_differs_is_refused_by_name(self):
        self.refused_pair(self.bench("--kernels", "reference"), self.bench("--kernels", "avx2"),
                          "rank 1: --kernels is avx2; rank 0 has reference")
        self.refused_pair(self.bench("--tp", "2"), self.bench(),
                          "rank 1: the layout is --tp 1 --cp 1 --dp 2 --moe-tp 1 --pp 1; rank 0 has --tp 2 --cp 1 --dp 1 --moe-tp 1 --pp 1")
        self.refused_pair(self.bench("--split", "first"), self.bench(), "rank 1: --split is optimal; rank 0 has first")
        other = self.model(TINY, rms_norm_eps=1e-5)
        rows = self.dataset()
        self.refused_pair(self.bench(), ["bench", "throughput", "-m", other, "--dataset", rows, "--concurrency", "16",
                                         "--max-num-tokens", "64", "--threads", "1"], "rank 1: .*config.json is")

    def test_an_option_that_one_rank_cannot_read_is_refused_with_its_rank(self):
        self.refused_pair(self.bench(), self.bench("--deadline", "0"), "rank 1: --deadline is 0; allowed: 0.1 to 86400")
        self.refused_pair(self.bench("--deadline", "0"), self.bench(), "error: --deadline is 0; allowed: 0.1 to 86400")

    def test_configuration_files_are_read_by_every_rank_and_refused_once(self):
        bad = self.path("bad.yaml", "max_bath_size: 3\n")
        self.refused_ranks(2, self.bench("-c", bad), 'unknown key "max_bath_size".*max_batch_size')
        file = self.path("a.yaml", "split: first\n")
        self.refused_pair(self.bench("-c", file), self.bench(), "rank 1: --split is optimal; rank 0 has first")

    def test_every_option_that_ranks_must_have_alike_is_compared(self):
        logits = ["logits", "-m", TINY, "--input-ids", self.path("ids.json", [[1, 2]]), "--output", self.path("out")]
        rows = [line.strip("| \n").replace("\\|", "/").split(" | ") for line in run("config", "docs").stdout.splitlines()]
        options = [(next(name for name in row[0].split("`") if name.startswith("--")), row[1]) for row in rows
                   if len(row) == 6 and row[3] in ("alike", "file alike") and "--device" not in row[0]]  # where there are none
        self.assertIn(("--deadline", "FLOAT: 0.1 to 86400"), options)
        texts = {"--kv-cache-memory": "64M", "--placement": "random:3", "--migration-bandwidth": "1G", "--weight-store": "mine",
                 "--weight-file": "/nowhere/experts", "--pp-partition": "4", "--pp-micro-batches": "1"}
        cases = []  # option, what rank 1 has, what is said
        for option, kind in options:
            if kind == "no value":
                cases.append((option, [option], "is true; rank 0 has false"))
                continue
            value = texts.get(option) or ("32" if kind.startswith(("INT", "FLOAT")) else kind.split("/")[1])
            cases.append((option, [option, value], f"is {value}; rank 0 has"))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:  # mpirun waits more than it works
            all_done = pool.map(lambda case: self.pair(logits, [*logits, *case[1]]), cases)
        for (option, _, said), done in zip(cases, all_done):
            with self.subTest(option):
                self.assert_refused_once(done, f"rank 1: {option} {said}")

    def test_a_rank_with_other_weights_is_refused_by_name(self):
        rows = self.dataset()
        trained_on = self.model(TINY)
        weights = trained_on / "model-00002-of-00004.safetensors"
        data = bytearray(weights.read_bytes())
        begin = 8 + int.from_bytes(data[:8], "little")
        data[begin:] = bytes(byte ^ 1 for byte in data[begin:])
        weights.unlink()
        weights.write_bytes(data)
        self.refused_pair(self.bench(), ["bench", "throughput", "-m", trained_on, "--dataset", rows, "--concurrency", "16",
                                         "--max-num-tokens", "64", "--threads", "1"], "rank 1: .*tensors .*is")

    def test_a_shared_memory_that_is_too_small_is_refused_with_the_sum(self):
        script = 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"'
        if subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", "true"], capture_output=True).returncode != 0:
            self.skipTest("no mounts of its own")
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", MPIRUN, "-n", "2", str(PROGRAM), "generate",
                               "-p", "x"], capture_output=True, text=True, env=ENVIRONMENT, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(re.findall("wideload: error", done.stderr)), 1, done.stderr)
        self.assertRegex(done.stderr, r"needs [\d.]+ MiB \(weights [\d.]+ MiB \+ exchange and messages of 2 ranks [\d.]+ "
                                      r"MiB\); /dev/shm has [\d.]+ MiB free of 24.0 MiB. Give it more")

    def test_srun_without_pmi_is_refused_by_name(self):
        done = run("generate", "-p", "x", env={**os.environ, "SLURM_STEP_NUM_TASKS": "4"})
        self.assertEqual(done.returncode, 2)
        self.assertIn("--mpi=pmix", done.stderr)


class Ends(ProcessesTest):
    def test_interrupts_end_all_with_statistics(self):
        for target, code in (("mpirun", None), (0, 143), (2, 143)):
            with self.subTest(target):
                folder = self.folder / f"statistics-{target}"
                ranks = Ranks(self, 4, self.long_run("--ep", "4", "--expert-statistic-path", folder))
                pids = ranks.pids()
                ranks.wait_for(STARTED)
                time.sleep(0.3)
                if target == "mpirun":
                    ranks.mpirun.send_signal(signal.SIGINT)
                else:
                    os.kill(pids[target], signal.SIGTERM)
                self.assertNotEqual(ranks.end(20), 0)
                if code:
                    self.assertEqual(ranks.mpirun.returncode, code, ranks.stderr())
                self.assertIn("expert statistics of", ranks.stderr())
                self.assertEqual(sorted(p.name for p in folder.iterdir()),
                                 ["meta_info.json", *(f"rank{r}.safetensors" for r in range(4))])
                self.assert_gone(pids, time.monotonic() + 5)

    def assert_gone(self, pids, latest):
        """mpirun may end a moment before them."""
        while any(map(living, pids)) and time.monotonic() < latest:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if living(pid)], [])

    def kill_one(self, num_ranks, victim, delay_s):
        ranks = Ranks(self, num_ranks, self.long_run())
        pids = ranks.pids()
        ranks.wait_for(STARTED)
        time.sleep(delay_s)
        os.kill(pids[victim], signal.SIGKILL)
        killed = time.monotonic()
        code = ranks.end(20)
        self.assert_gone(pids, killed + 5)
        self.assertLess(time.monotonic() - killed, 5)
        self.assertNotEqual(code, 0)
        self.assertRegex(ranks.stderr(), rf"iteration \d+, layer \d+: waited for .*rank {victim}(: it)? is dead")
        self.assertEqual(segments(f"{pids[0]}-"), [])

    def test_the_others_name_a_rank_that_is_killed(self):
        for victim, delay_s in ((3, 0.05), (0, 0.2), (1, 0.5)):
            with self.subTest(victim):
                self.kill_one(4, victim, delay_s)

    def test_ranks_that_wait_for_a_request_notice_a_death_by_themselves(self):
        """mpirun is told to leave them alone."""
        alone = [MPIRUN, "--enable-recovery", "-n", "4", str(PROGRAM)]
        for command, stdin, started in ((["serve", "--port", "0"], subprocess.DEVNULL, "serving"),
                                        (["chat"], subprocess.PIPE, STARTED)):
            for victim in (2, 0):
                with self.subTest(command[0], victim=victim):
                    ranks = Ranks(self, 4, [*command, "--threads", "1"], stdin=stdin, mpirun=alone)
                    pids = ranks.pids()
                    ranks.wait_for(started)
                    os.kill(pids[victim], signal.SIGKILL)
                    self.assert_gone(pids, time.monotonic() + 5)
                    self.assertRegex(ranks.stderr(), rf"rank {victim}(: it)? is dead")
                    self.assertEqual(segments(f"{pids[0]}-"), [])

    def stopped_while_loading(self, victim):
        """A start whose rank `victim` is stopped while the memory for the weights has a name, which are milliseconds."""
        for _ in range(40):
            ranks = Ranks(self, 4, self.bench())
            pids = ranks.pids()
            while STARTED not in ranks.stderr() and ranks.mpirun.poll() is None:
                if not any(name.endswith(".weights-0") for name in segments(f"{pids[0]}-")):
                    continue
                os.kill(pids[victim], signal.SIGSTOP)  # it goes no further, and the others wait for it
                time.sleep(0.3)
                if STARTED not in ranks.stderr():
                    return ranks, pids
                os.kill(pids[victim], signal.SIGCONT)
                break
            self.assertEqual(ranks.end(), 0, ranks.stderr())
        self.fail("no start was caught while it loaded weights")

    def test_a_rank_that_is_killed_while_weights_load_is_named(self):
        for victim in (2, 0):
            with self.subTest(victim):
                ranks, pids = self.stopped_while_loading(victim)
                os.kill(pids[victim], signal.SIGKILL)
                killed = time.monotonic()
                self.assertNotEqual(ranks.end(20), 0)
                self.assert_gone(pids, killed + 5)
                self.assertLess(time.monotonic() - killed, 5)
                self.assertRegex(ranks.stderr(), rf"of rank {victim}: it is dead")
                self.assertEqual(segments(f"{pids[0]}-"), [])

    def test_a_rank_that_is_stopped_for_good_is_named(self):
        ranks = Ranks(self, 4, self.long_run("--deadline", "1"))
        pids = ranks.pids()
        ranks.wait_for(STARTED)
        os.kill(pids[1], signal.SIGSTOP)
        self.assertNotEqual(ranks.end(20), 0)
        self.assertRegex(ranks.stderr(), r"iteration \d+, layer \d+: waited for .* rank 1: no answer for")
        self.assert_gone(pids, time.monotonic() + 5)

    def test_a_rank_that_is_stopped_for_3_s_is_waited_for(self):
        out = self.path("out")
        ranks = Ranks(self, 4, self.bench("--output", out, "--warmup", "4", num_rows=600))
        pids = ranks.pids()
        ranks.wait_for(STARTED)
        os.kill(pids[2], signal.SIGSTOP)
        time.sleep(3)
        self.assertFalse(out.exists())
        os.kill(pids[2], signal.SIGCONT)
        self.assertEqual(ranks.end(), 0, ranks.stderr())
        self.assertEqual(len(out.read_text().splitlines()), 600)


if __name__ == "__main__":
    if shutil.which(MPIRUN) is None:
        sys.exit("mpirun is not there: nothing was tested")
    unittest.main()
