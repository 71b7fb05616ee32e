#!/usr/bin/env python3
"""The configurations of deploy/layouts on eight ranks. Usage: layout_files_test.py [unittest options]."""
import pathlib
import sys
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import random_checkpoint  # noqa: E402
from cli_support import EMBEDDED, SOURCE, CliTest  # noqa: E402

LAYOUTS = SOURCE / "deploy/layouts"
# A head and some columns of everything for each of eight ranks.
SIZES = {"HIDDEN": 128, "WIDTH": 64, "HEAD_DIM": 16, "HEADS": 8, "KV_HEADS": 2, "VOCAB": 320, "EXPERTS": 16, "TOP_K": 4}


class LayoutFiles(CliTest):
    def logits(self, model, *flags):
        """(bytes of the logits of three prompts, what the start said)"""
        ids = self.path("ids.json", [[5, 9, 200, 31, 8], [1], list(range(40, 100))])
        out = self.folder / "logits.safetensors"
        done = self.good("logits", "-m", model, "--input-ids", ids, "--output", out, *flags)
        return out.read_bytes(), done.stderr

    def test_all_ways_to_divide_attention_and_experts_give_the_logits_of_one_rank(self):
        with unittest.mock.patch.multiple(random_checkpoint, **SIZES):
            random_checkpoint.make(self.folder / "model", 2)  # several layers, of which each stage has some
        expected, _ = self.logits(self.folder / "model")
        for name, said in [("attention-tp-8", "8 ranks that share attention"), ("attention-dp-8", "8 ranks x"),
                           ("moe-tp-only", "each divided among 8 ranks"), ("moe-ep-only", "16 slots for 16 experts, placement"),
                           ("moe-tp-4-ep-2", "each divided among 4 ranks"), ("pp-2-ep-4", "2 stages of 4 ranks x"),
                           ("tp-2-cp-4", "8 ranks that share attention by 2 and contexts by 4")]:
            with self.subTest(name):
                found, start = self.logits(self.folder / "model", "--config", LAYOUTS / f"{name}.yaml")
                self.assertIn(said, start)
                self.assertEqual(found, expected)

    def test_wide_ep_with_its_balancer_runs_on_the_embedded_model(self):
        expected, _ = self.logits(EMBEDDED)
        found, start = self.logits(EMBEDDED, "--config", LAYOUTS / "wide-ep.yaml")
        self.assertIn("72 slots for 64 experts", start)
        self.assertIn("online balancer: repair", start)
        self.assertEqual(found, expected)

    # A guide prints several settings in one block, each with a comment.
    def test_two_settings_in_one_file_are_refused_naming_the_key(self):
        for first, second, key in [("attention-tp-8", "attention-dp-8", "tensor_parallel_size"),
                                   ("moe-tp-only", "moe-ep-only", "tensor_parallel_size")]:
            text = (LAYOUTS / f"{first}.yaml").read_text() + (LAYOUTS / f"{second}.yaml").read_text()
            self.refused(["generate", "-p", "Once", "-c", self.path("both.yaml", text)],
                         rf'both.yaml:5: duplicate key "{key}"; it is already set in line 2')
        text = "tensor_parallel_size: 8\nmoe_tensor_parallel_size: 8\nmoe_expert_parallel_size: 8\nmoe_tensor_parallel_size: 4\n"
        self.refused(["generate", "-p", "Once", "-c", self.path("both.yaml", text)],
                     'both.yaml:4: duplicate key "moe_tensor_parallel_size"; it is already set in line 2')


if __name__ == "__main__":
    unittest.main()
