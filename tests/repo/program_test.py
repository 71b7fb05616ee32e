#!/usr/bin/env python3
"""What the program says about the machine and about how it was started. usage: program_test.py PROGRAM"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

PROGRAM = ""


def run(*arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_"))} | variables
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment)


def doctor(*arguments, **variables):
    result = run("doctor", "--json", *arguments, **variables)
    assert result.returncode == 0, result.stderr
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


class Doctor(unittest.TestCase):
    def test_says_of_every_part_what_was_found_and_is_wanted(self):
        checks = doctor()
        gpus = {"GPUs", "GPU driver", "multi-node NVLink", "CDMM", "GDRCopy", "enroot"}
        self.assertEqual(set(checks) - (gpus - {"GPUs"}), {"kernels", "cores", "huge pages", "NUMA", "shared memory",
                                                           "leftovers", "open files", "locked memory", "MPI", "network",
                                                           "SLURM", "GPUs"})
        for check in checks.values():
            self.assertIn(check["status"], ("ok", "note", "problem"))
            self.assertTrue(check["found"] and check["wanted"])

    def test_a_machine_without_gpus_is_one_note(self):
        if any(pathlib.Path("/dev").glob("nvidia*")) or pathlib.Path("/proc/driver/nvidia").exists():
            self.skipTest("there are GPUs, or parts of them")
        checks = doctor(ENROOT_ALLOW_DEV="")
        self.assertEqual((checks["GPUs"]["status"], checks["GPUs"]["found"]), ("note", "none"))
        self.assertFalse(set(checks) & {"GPU driver", "multi-node NVLink", "CDMM", "GDRCopy", "enroot"})

    def test_notes_more_ranks_than_cores(self):
        self.assertEqual(doctor("--ep", "1")["cores"]["status"], "ok")
        cores = doctor("--ep", "100000")["cores"]
        self.assertEqual(cores["status"], "note")
        self.assertTrue(cores["run"])

    def test_sees_tasks_of_srun_that_cannot_meet(self):
        slurm = doctor(SLURM_JOB_ID="7", SLURM_NTASKS="4", SLURM_STEP_NUM_TASKS="4")["SLURM"]
        self.assertEqual(slurm["status"], "problem")
        self.assertIn("job 7", slurm["found"])
        self.assertIn("--mpi=pmix", slurm["run"])

    def test_cleans_what_dead_runs_left_and_nothing_else(self):
        # Whatever others run on this machine meanwhile: no run of ours is dead.
        foreign = pathlib.Path("/dev/shm") / f"program_test_{os.getpid()}"
        foreign.write_bytes(b"of another program" * 1000)
        try:
            leftovers = doctor("--clean")["leftovers"]
            self.assertIn("removed", leftovers["found"])
            self.assertTrue(foreign.exists())
        finally:
            foreign.unlink()

    def test_prints_a_line_per_part(self):
        text = run("doctor").stdout
        self.assertIn("kernels", text)
        self.assertGreaterEqual(len(text.splitlines()), 10)


class Options(unittest.TestCase):
    def test_the_page_in_docs_is_that_of_the_program(self):
        page = run("config", "docs")
        self.assertEqual(page.returncode, 0, page.stderr)
        self.assertEqual(pathlib.Path("docs/configuration.md").read_text(), page.stdout,
                         "renew it: wideload config docs > docs/configuration.md")


class Launch(unittest.TestCase):
    def test_tasks_of_srun_that_cannot_meet_are_refused_before_the_model_is_read(self):
        result = run("generate", "-p", "x", "-n", "1", "-m", "missing", SLURM_STEP_NUM_TASKS="2")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--mpi=pmix", result.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop()
    unittest.main()
