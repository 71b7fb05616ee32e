import unittest

import numpy as np

import golden
import wideload_eplb

# With equal loads another rank may get the odd one of them; single precision decides which.
RANK_LOAD_TOLERANCE = 1e-5


class RebalanceExperts(unittest.TestCase):
    def expect_inverse(self, slots, table, counts):
        """table and counts say the same as slots."""
        layers, experts, most = table.shape
        self.assertEqual(most, counts.max())
        for layer in range(layers):
            for expert in range(experts):
                listed = [s for s in table[layer, expert] if s >= 0]
                self.assertEqual(sorted(listed), list(np.flatnonzero(slots[layer] == expert)))
                self.assertEqual(len(listed), counts[layer, expert])
                self.assertTrue((table[layer, expert, len(listed) :] == -1).all())

    def test_gives_the_golden_plans(self):
        for case in golden.plans():
            loads = np.array([case["loads"]], dtype=np.float32)
            slots, table, counts = wideload_eplb.rebalance_experts(
                loads, case["num_slots"], case["num_groups"], case["num_nodes"], case["num_ranks"]
            )
            self.assertEqual(slots.tolist(), [case["slot_expert"]])
            self.assertEqual(counts.tolist(), [case["replicas"]])
            self.expect_inverse(slots, table, counts)

    def test_gives_the_published_example(self):
        slots, table, counts = wideload_eplb.rebalance_experts(
            [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]], 16, 4, 2, 8
        )
        self.assertEqual(slots.tolist(), [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]])
        self.assertEqual(counts.tolist(), [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]])
        self.assertEqual([slots.dtype, table.dtype, counts.dtype], [np.int64] * 3)
        self.assertEqual(table.shape, (1, 12, 2))

    def test_equals_the_published_function_where_nothing_ties(self):
        tensors = golden.read_shared("deepseek-eplb-golden.safetensors")
        names = sorted(key[: -len(".weight")] for key in tensors if key.endswith(".weight"))
        self.assertEqual(len(names), 17)
        for name in names:
            weight = tensors[f"{name}.weight"]
            sizes = tensors[f"{name}.shape"].tolist()
            slots, table, counts = wideload_eplb.rebalance_experts(weight, *sizes)
            self.expect_inverse(slots, table, counts)
            expected = tensors[f"{name}.physical_to_logical"]
            expected_counts = tensors[f"{name}.logical_count"]
            for layer, loads in enumerate(weight):
                if len(set(loads)) == len(loads):
                    np.testing.assert_array_equal(slots[layer], expected[layer], err_msg=name)
                    np.testing.assert_array_equal(counts[layer], expected_counts[layer], err_msg=name)
                    # replicas of one expert are equally loaded: torch's sort may number them in any order
                    np.testing.assert_array_equal(
                        np.sort(table[layer]), np.sort(tensors[f"{name}.logical_to_physical"][layer]), err_msg=name
                    )
                else:
                    ours = _rank_loads(slots[layer], counts[layer], loads, sizes[3])
                    theirs = _rank_loads(expected[layer], expected_counts[layer], loads, sizes[3])
                    np.testing.assert_allclose(ours, theirs, rtol=RANK_LOAD_TOLERANCE, err_msg=name)

    def test_does_not_depend_on_threads_or_the_kind_of_array(self):
        loads = golden.skewed_loads(1, (7, 32))
        one = wideload_eplb.rebalance_experts(loads, 40, 1, 1, 8, num_threads=1)
        for weight, threads in (
            (loads, 5),
            (loads.astype(np.float64), 3),
            (loads.tolist(), 2),
            (loads[:, ::-1][:, ::-1], 1),
        ):
            for a, b in zip(one, wideload_eplb.rebalance_experts(weight, 40, 1, 1, 8, num_threads=threads)):
                np.testing.assert_array_equal(a, b)

    def test_refuses_bad_loads_and_sizes(self):
        loads = golden.skewed_loads(2, (2, 8))
        with self.assertRaisesRegex(ValueError, r"weight\[1, 3\] is -5"):
            bad = loads.copy()
            bad[1, 3] = -5
            wideload_eplb.rebalance_experts(bad, 8, 1, 1, 4)
        with self.assertRaisesRegex(ValueError, r"weight\[0, 0\] is nan"):
            wideload_eplb.rebalance_experts([[float("nan"), 1]], 2, 1, 1, 1)
        with self.assertRaisesRegex(ValueError, r"shape \[8\]"):
            wideload_eplb.rebalance_experts(loads[0], 8, 1, 1, 4)
        with self.assertRaisesRegex(TypeError, "dtype complex128"):
            wideload_eplb.rebalance_experts(loads * 1j, 8, 1, 1, 4)
        with self.assertRaisesRegex(TypeError, "num_gpus is 2.5"):
            wideload_eplb.rebalance_experts(loads, 8, 1, 1, 2.5)
        for sizes in ((7, 1, 1, 1), (9, 1, 1, 2), (8, 3, 1, 2), (12, 4, 2, 3), (8, 1, 0, 2), (2**31, 1, 1, 1)):
            with self.assertRaises(ValueError, msg=sizes):
                wideload_eplb.rebalance_experts(loads, *sizes)
        with self.assertRaisesRegex(ValueError, "num_threads is 0"):
            wideload_eplb.rebalance_experts(loads, 8, 1, 1, 4, num_threads=0)

    def test_takes_and_gives_tensors(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        loads = golden.skewed_loads(3, (3, 16))
        expected = wideload_eplb.rebalance_experts(loads, 24, 1, 1, 4)
        for dtype in (torch.int64, torch.float32, torch.float64):
            for tensor, array in zip(
                wideload_eplb.rebalance_experts(torch.tensor(loads, dtype=dtype), 24, 1, 1, 4), expected
            ):
                self.assertIsInstance(tensor, torch.Tensor)
                self.assertEqual(tensor.dtype, torch.int64)
                np.testing.assert_array_equal(tensor.numpy(), array)
        self.assertEqual(
            wideload_eplb.imbalance(torch.ones(2, 4, dtype=torch.bfloat16), torch.arange(4), 2).tolist(), [0, 0]
        )


def _rank_loads(slots, counts, weight, ranks):
    """Sorted loads of the ranks."""
    return np.sort((weight[slots].astype(np.float64) / counts[slots]).reshape(ranks, -1).sum(1))


if __name__ == "__main__":
    unittest.main()
