import ast
import inspect
import pathlib
import sys
import types
import unittest
from unittest import mock

import numpy as np

import golden
import wideload_eplb
from wideload_eplb import _core, sglang, vllm

LAYERS, EXPERTS, SLOTS, RANKS = 3, 16, 24, 4


class SGLang(unittest.TestCase):
    def setUp(self):
        self.steps = golden.skewed_loads(1, (5, LAYERS, EXPERTS))

    def rebalance(self, algorithm, **more):
        return sglang.rebalance_experts(
            tokens_per_expert=self.steps,
            num_physical_experts=SLOTS,
            num_local_physical_experts=SLOTS // RANKS,
            num_groups=4,
            num_nodes=2,
            algorithm=algorithm,
            **more,
        )

    def test_deepseek_algorithms_are_rebalance_experts_of_the_sum(self):
        total = self.steps.sum(0)
        for algorithm, groups, nodes in (
            (sglang.EplbAlgorithm.deepseek, 1, 1),
            (sglang.EplbAlgorithm.deepseek_hierarchical, 4, 2),
        ):
            for a, b in zip(
                self.rebalance(algorithm), wideload_eplb.rebalance_experts(total, SLOTS, groups, nodes, RANKS)
            ):
                np.testing.assert_array_equal(a, b)

    def test_tables_invert_the_placement(self):
        for algorithm in (sglang.EplbAlgorithm.even, sglang.EplbAlgorithm.scenario, sglang.EplbAlgorithm.tensorrt_llm):
            placement, table, counts = self.rebalance(algorithm)
            np.testing.assert_array_equal(
                placement, wideload_eplb.plan(self.steps, SLOTS, RANKS, policy=algorithm.name)
            )
            self.assertEqual(table.shape, (LAYERS, EXPERTS, counts.max()))
            for layer, expert in np.ndindex(LAYERS, EXPERTS):
                slots = np.flatnonzero(placement[layer] == expert)
                self.assertEqual(counts[layer, expert], len(slots))
                self.assertEqual(table[layer, expert].tolist(), slots.tolist() + [-1] * (counts.max() - len(slots)))

    def test_inactive_ranks_hold_nothing_that_is_used(self):
        placement, table, counts = self.rebalance(
            sglang.EplbAlgorithm.elasticity_aware, active_ranks=np.array([1, 0, 1, 1])
        )
        local = SLOTS // RANKS
        self.assertTrue((placement[:, local : 2 * local] == 0).all())
        self.assertFalse(((table >= local) & (table < 2 * local)).any())
        self.assertEqual(counts.sum(1).tolist(), [SLOTS - local] * LAYERS)
        for layer, expert in np.ndindex(LAYERS, EXPERTS):
            for slot in table[layer, expert, : counts[layer, expert]]:
                self.assertEqual(placement[layer, slot], expert)
        np.testing.assert_array_equal(
            np.delete(placement, slice(local, 2 * local), axis=1),
            wideload_eplb.rebalance_experts(self.steps.sum(0), SLOTS - local, 1, 1, RANKS - 1)[0],
        )

    def test_all_active_ranks_are_deepseek(self):
        for active in (np.ones(RANKS), np.array([1] * RANKS + [0, 0])):  # with room to grow
            elastic = self.rebalance(sglang.EplbAlgorithm.elasticity_aware_hierarchical, active_ranks=active)
            for a, b in zip(elastic, self.rebalance(sglang.EplbAlgorithm.deepseek_hierarchical)):
                np.testing.assert_array_equal(a, b)
        with self.assertRaisesRegex(ValueError, r"active_ranks has shape \[6\] with 5 active"):
            self.rebalance(sglang.EplbAlgorithm.elasticity_aware, active_ranks=np.array([1, 1, 1, 1, 0, 1]))

    def test_active_ranks_come_from_sglang(self):
        active = types.SimpleNamespace(active_ranks=np.array([1, 1, 0, 1], dtype=np.int32))
        expected = self.rebalance(sglang.EplbAlgorithm.elasticity_aware, active_ranks=active.active_ranks)
        manager = types.SimpleNamespace(instance=lambda: active)
        nobody = types.SimpleNamespace(instance=lambda: None)
        for name, value, like in (
            ("ElasticEPStateManager", manager, expected),
            ("ElasticEPStateManager", nobody, self.rebalance(sglang.EplbAlgorithm.deepseek)),
            ("get_elastic_ep_state", lambda: active, expected),
        ):
            modules = {n: types.ModuleType(n) for n in ("sglang", "sglang.srt", "sglang.srt.elastic_ep")}
            module = types.ModuleType("sglang.srt.elastic_ep.elastic_ep")
            setattr(module, name, value)
            modules["sglang.srt.elastic_ep"].elastic_ep = module
            with mock.patch.dict(sys.modules, {**modules, module.__name__: module}):
                elastic = self.rebalance(sglang.EplbAlgorithm.elasticity_aware)
            for a, b in zip(elastic, like):
                np.testing.assert_array_equal(a, b)

    def test_hierarchical_scenario_keeps_groups_on_nodes(self):
        placement, _, _ = self.rebalance(sglang.EplbAlgorithm.scenario_hierarchical)
        np.testing.assert_array_equal(
            placement, wideload_eplb.plan(self.steps, SLOTS, RANKS, num_groups=4, num_nodes=2)
        )
        self.assertFalse((placement == self.rebalance(sglang.EplbAlgorithm.scenario)[0]).all())

    def test_names_are_those_of_sglang(self):
        self.assertIs(sglang.compute_algorithm("auto", 8, 4), sglang.EplbAlgorithm.deepseek_hierarchical)
        self.assertIs(sglang.compute_algorithm("auto", None, 4), sglang.EplbAlgorithm.deepseek)
        self.assertIs(sglang.compute_algorithm("scenario", 8, 4), sglang.EplbAlgorithm.scenario)
        with self.assertRaisesRegex(ValueError, 'is "best"; allowed: auto, deepseek'):
            sglang.compute_algorithm("best", None, 1)
        with self.assertRaisesRegex(ValueError, "deepseek_vec is not offered"):
            self.rebalance(sglang.EplbAlgorithm.deepseek_vec)


class VLLM(unittest.TestCase):
    def setUp(self):
        self.loads = golden.skewed_loads(2, (LAYERS, EXPERTS))

    def test_signature_is_that_of_vllm(self):
        parameters = inspect.signature(vllm.DefaultEplbPolicy.rebalance_experts).parameters
        self.assertEqual(
            list(parameters),
            ["weight", "num_replicas", "num_groups", "num_nodes", "num_ranks", "old_global_expert_indices"],
        )

    def test_gives_deepseek_placements(self):
        placement = vllm.DefaultEplbPolicy.rebalance_experts(self.loads, SLOTS, 4, 2, RANKS)
        np.testing.assert_array_equal(placement, wideload_eplb.rebalance_experts(self.loads, SLOTS, 4, 2, RANKS)[0])

    def test_experts_that_stay_on_a_rank_keep_their_slot(self):
        old = wideload_eplb.plan(golden.skewed_loads(3, (LAYERS, EXPERTS)), SLOTS, RANKS, policy="deepseek")
        local = SLOTS // RANKS
        for nodes, groups in ((1, 1), (2, 4)):
            new = wideload_eplb.rebalance_experts(self.loads, SLOTS, groups, nodes, RANKS)[0]
            kept = vllm.DefaultEplbPolicy.rebalance_experts(self.loads, SLOTS, groups, nodes, RANKS, old)
            node_ranks = RANKS // nodes
            for layer, node in np.ndindex(LAYERS, nodes):  # the same ranks, by other names on the same node
                part = slice(node * node_ranks * local, (node + 1) * node_ranks * local)
                ranks_of = [sorted(map(sorted, p[layer, part].reshape(-1, local).tolist())) for p in (new, kept)]
                self.assertEqual(*ranks_of)
            common = np.zeros(2, dtype=np.int64)  # slots of the renamed and of the new plan that their rank held before
            for layer, rank in np.ndindex(LAYERS, RANKS):
                part = slice(rank * local, (rank + 1) * local)
                before, after = old[layer, part].tolist(), kept[layer, part].tolist()
                held = [sum(min(before.count(e), p.count(e)) for e in set(before)) for p in (after, new[layer, part].tolist())]
                self.assertEqual((old[layer, part] == kept[layer, part]).sum(), held[0])
                common += held
            self.assertGreater(common[0], common[1])

    def test_an_old_placement_of_another_size_is_not_used(self):
        for old in (np.zeros((LAYERS, SLOTS + RANKS), dtype=np.int64), np.full((LAYERS, SLOTS), -1)):
            np.testing.assert_array_equal(
                vllm.DefaultEplbPolicy.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS, old),
                vllm.DefaultEplbPolicy.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS),
            )

    def test_repairs_the_old_placement_within_the_budget(self):
        class Repairing(vllm.WideloadEplbPolicy):
            max_fetched_slots = 2

        old = wideload_eplb.plan(golden.skewed_loads(3, (LAYERS, EXPERTS)), SLOTS, RANKS)
        new = Repairing.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS, old)
        changed = (new != old).sum(1)
        self.assertTrue((changed <= 2).all() and changed.any(), changed)
        before, after = (wideload_eplb.imbalance(self.loads, p, RANKS, split="even").mean() for p in (old, new))
        self.assertLess(after, before)

    def test_repair_and_scenario_keep_groups_on_nodes(self):
        class Repairing(vllm.WideloadEplbPolicy):
            max_fetched_slots = 6
            cross_node_slots = 0

        class Scenario(vllm.WideloadEplbPolicy):
            policy = "scenario"
            cross_node_slots = 0

        def nodes_of_experts(placement):
            return [[{s * 2 // SLOTS for s in np.flatnonzero(row == e)} for e in range(EXPERTS)] for row in placement]

        other = golden.skewed_loads(3, (LAYERS, EXPERTS))
        old = vllm.DefaultEplbPolicy.rebalance_experts(other, SLOTS, 4, 2, RANKS)
        new = Repairing.rebalance_experts(self.loads, SLOTS, 4, 2, RANKS, old)
        self.assertTrue((new != old).any())
        self.assertEqual(nodes_of_experts(new), nodes_of_experts(old))
        flat = Repairing.rebalance_experts(self.loads, SLOTS, 1, 2, RANKS, old)  # vLLM's global policy
        self.assertNotEqual(nodes_of_experts(flat), nodes_of_experts(old))
        planned = Scenario.rebalance_experts(self.loads, SLOTS, 4, 2, RANKS)
        for nodes in nodes_of_experts(planned):
            for group in range(0, EXPERTS, 4):
                self.assertEqual(len(set.union(*nodes[group : group + 4])), 1)

    def test_plans_anew_where_the_old_placement_has_holes(self):
        class Repairing(vllm.WideloadEplbPolicy):
            max_fetched_slots = 0

        old = vllm.DefaultEplbPolicy.rebalance_experts(golden.skewed_loads(3, (LAYERS, EXPERTS)), SLOTS, 1, 1, RANKS)
        np.testing.assert_array_equal(Repairing.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS, old), old)
        empty, lost = old.copy(), old.copy()
        empty[:, -SLOTS // RANKS :] = -1  # a rank that was added
        lost[lost == 5] = 4
        for holes in (empty, lost):
            np.testing.assert_array_equal(
                Repairing.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS, holes),
                vllm.DefaultEplbPolicy.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS, holes),
            )

    def test_three_maps_for_older_versions(self):
        placement, table, counts = vllm.ThreeMapsEplbPolicy.rebalance_experts(self.loads, SLOTS, 1, 1, RANKS)
        self.assertEqual(counts.sum(1).tolist(), [SLOTS] * LAYERS)
        self.assertEqual(placement[0, table[0, 5, 0]], 5)


class Tensors(unittest.TestCase):
    def test_adapters_give_tensors_for_tensors(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        steps = golden.skewed_loads(4, (5, LAYERS, EXPERTS))
        sizes = (SLOTS, SLOTS // RANKS, 4, 2)
        for algorithm in (sglang.EplbAlgorithm.deepseek, sglang.EplbAlgorithm.scenario):
            tensors = sglang.rebalance_experts(torch.tensor(steps), *sizes, algorithm)
            for tensor, array in zip(tensors, sglang.rebalance_experts(steps, *sizes, algorithm)):
                self.assertEqual(tensor.dtype, torch.int64)
                np.testing.assert_array_equal(tensor.numpy(), array)
        active = torch.tensor([1, 1, 0, 1], dtype=torch.int32)
        elastic = sglang.rebalance_experts(torch.tensor(steps), *sizes, sglang.EplbAlgorithm.elasticity_aware, active)
        self.assertTrue(all(isinstance(tensor, torch.Tensor) for tensor in elastic))
        weight = torch.tensor(steps.sum(0))
        old = vllm.DefaultEplbPolicy.rebalance_experts(weight, SLOTS, 1, 1, RANKS)
        new = vllm.ThreeMapsEplbPolicy.rebalance_experts(weight.float() * 2, SLOTS, 1, 1, RANKS, old)
        self.assertTrue(torch.equal(new[0], old))
        self.assertIsInstance(wideload_eplb.repair(old, steps, RANKS).placement, torch.Tensor)


class Stubs(unittest.TestCase):
    def names_of(self, path):
        return {
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }

    def test_stubs_name_what_there_is(self):
        package = pathlib.Path(wideload_eplb.__file__).parent
        self.assertTrue((package / "py.typed").exists())
        self.assertEqual(
            self.names_of(package / "_core.pyi"), {name for name in dir(_core) if not name.startswith("_")}
        )
        for module, stub in ((wideload_eplb, "__init__.pyi"), (sglang, "sglang.pyi"), (vllm, "vllm.pyi")):
            stubbed = {
                node.name: node
                for node in ast.parse((package / stub).read_text()).body
                if isinstance(node, ast.FunctionDef)
            }
            for name in module.__all__:
                function = getattr(module, name)
                if inspect.isfunction(function):
                    arguments = stubbed[name].args
                    self.assertEqual(
                        [a.arg for a in arguments.args + arguments.kwonlyargs],
                        list(inspect.signature(function).parameters),
                        name,
                    )


if __name__ == "__main__":
    unittest.main()
