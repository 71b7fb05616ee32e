"""The adapters within the engines themselves: runs where vLLM or SGLang can be imported, skips and says so elsewhere."""
import contextlib
import importlib
import inspect
import os
import types
import unittest
from unittest import mock

import golden
import wideload_eplb
from wideload_eplb import sglang, vllm

LAYERS, EXPERTS, SLOTS, RANKS = 4, 48, 80, 8
SIZES = ((1, 1), (8, 2), (8, 1), (1, 2))  # groups, nodes
LOAD_TOLERANCE = 1e-5  # of rank loads where experts tie: single precision decides


def engine_modules(*names):
    """The modules, or a skip that says why."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise unittest.SkipTest(f"{names[0]} cannot be imported: {error}") from None


def even_imbalance(loads, placement):
    return wideload_eplb.imbalance(loads, placement, RANKS, split="even").numpy()


class VLLM(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.policies, cls.state, cls.worker, cls.torch = engine_modules(
            "vllm.distributed.eplb.policy", "vllm.distributed.eplb.eplb_state", "vllm.distributed.eplb.async_worker", "torch"
        )
        cls.theirs = cls.policies.DefaultEplbPolicy
        cls.three_maps = isinstance(cls.theirs.rebalance_experts(cls.torch.ones(1, 2), 2, 1, 1, 2), tuple)  # up to 0.18
        cls.ours = vllm.ThreeMapsEplbPolicy if cls.three_maps else vllm.DefaultEplbPolicy

    def setUp(self):
        initial = self.state.EplbState.build_initial_global_physical_to_logical_map(EXPERTS, SLOTS - EXPERTS)
        self.initial = self.torch.tensor(initial).expand(LAYERS, -1).contiguous()
        self.windows = [
            self.torch.tensor(golden.skewed_loads(seed, (LAYERS, EXPERTS)), dtype=self.torch.int32) for seed in (1, 2)
        ]

    def maps(self, policy, *arguments):
        maps = policy.rebalance_experts(*arguments)
        return maps if self.three_maps else (maps,)

    def test_the_signature_is_that_of_the_abstract_policy(self):
        theirs = inspect.signature(self.policies.AbstractEplbPolicy.rebalance_experts).parameters
        ours = inspect.signature(vllm.DefaultEplbPolicy.rebalance_experts).parameters
        self.assertEqual(
            [(p.name, p.default, p.kind) for p in ours.values()], [(p.name, p.default, p.kind) for p in theirs.values()]
        )

    def test_the_line_to_replace_is_there(self):
        self.assertIn("\nfrom .default import DefaultEplbPolicy\n", inspect.getsource(self.policies))
        self.assertIs(self.state.EPLB_POLICIES, self.policies.EPLB_POLICIES)  # which a plugin changes

    def test_the_plugin_takes_the_place_of_the_default_policy(self):
        with mock.patch.dict(self.policies.EPLB_POLICIES), mock.patch.dict(os.environ, WIDELOAD_EPLB_POLICY="even"):
            vllm.register()
            self.assertEqual(self.state.EPLB_POLICIES["default"].policy, "even")

    def test_maps_are_those_of_its_own_policy(self):
        for groups, nodes in SIZES:
            sizes = (SLOTS, groups, nodes, RANKS)
            theirs, ours = (self.maps(policy, self.windows[0], *sizes) for policy in (self.theirs, self.ours))
            self.assertEqual(len(ours), len(theirs))
            for a, b in zip(ours, theirs):
                self.assertEqual((a.dtype, a.device), (b.dtype, b.device))
                self.assertTrue(a.is_contiguous())
                if a.dim() == 2:
                    self.assertEqual(a.shape, b.shape)
            if len(ours) == 3:  # tables may be padded to different widths
                self.assertLessEqual(ours[1].shape[2], theirs[1].shape[2])
                self.assertTrue(self.torch.equal((ours[1] >= 0).sum(2), ours[2]))
            for a, b in zip(*(even_imbalance(self.windows[0], maps[0]) for maps in (ours, theirs))):
                self.assertAlmostEqual(a, b, delta=LOAD_TOLERANCE)
            stay, theirs_stay = (
                int((self.maps(policy, self.windows[1], *sizes, ours[0])[0] == ours[0]).sum())
                for policy in (self.ours, self.theirs)
            )
            self.assertGreaterEqual(stay, theirs_stay - LAYERS)  # another choice among equal loads

    def rebalance(self, policy, window, placement, sizes):
        """The placement as vLLM asks for it: its background thread's function, or the arguments of both its callers."""
        if self.three_maps:
            self.skipTest("this vLLM takes three maps: looked at by test_maps_are_those_of_its_own_policy alone")
        if len(inspect.signature(self.worker.run_rebalance_experts).parameters) < 4:  # keeps the answer to itself
            return policy.rebalance_experts(window, SLOTS, *sizes, RANKS, placement)
        stats = types.SimpleNamespace(
            global_expert_load_window=window, num_replicas=SLOTS, num_groups=sizes[0], num_nodes=sizes[1], num_gpus=RANKS
        )
        with mock.patch.dict(self.policies.EPLB_POLICIES, default=policy):
            state = types.SimpleNamespace(policy=self.policies.EPLB_POLICIES["default"])
        model = types.SimpleNamespace(eplb_stats=stats)
        with mock.patch.object(self.worker, "device_stream", lambda stream: contextlib.nullcontext()):
            return self.worker.run_rebalance_experts(model, state, placement, None)

    def test_its_state_takes_the_placement(self):
        class Repairing(vllm.DefaultEplbPolicy):
            max_fetched_slots = 4

        for policy in (vllm.DefaultEplbPolicy, Repairing):
            for sizes in SIZES:
                placement = self.initial
                for window in (self.torch.zeros_like(self.windows[0]), *self.windows):
                    model = types.SimpleNamespace(
                        physical_to_logical_map=placement.clone(),
                        logical_to_physical_map=self.torch.full((LAYERS, EXPERTS, 32), -1),
                        logical_replica_count=self.torch.zeros((LAYERS, EXPERTS), dtype=self.torch.long),
                    )
                    placement = self.rebalance(policy, window, placement, sizes)
                    with mock.patch.object(self.state, "PIN_MEMORY", False, create=True):  # there may be no GPU
                        self.state._commit_eplb_maps(model, placement)
                    self.expect_maps(model, placement)

    def expect_maps(self, model, placement):
        self.assertTrue(self.torch.equal(model.physical_to_logical_map, placement))
        self.assertEqual(model.logical_replica_count.sum(1).tolist(), [SLOTS] * LAYERS)
        for layer in range(LAYERS):
            for expert in range(EXPERTS):
                slots = (placement[layer] == expert).nonzero().flatten().tolist()
                self.assertGreater(len(slots), 0)
                listed = model.logical_to_physical_map[layer, expert]
                self.assertEqual(sorted(listed[listed >= 0].tolist()), slots)

    def test_added_ranks_have_empty_slots(self):
        class Repairing(vllm.DefaultEplbPolicy):
            max_fetched_slots = 4

        grown = self.initial.clone()
        grown[:, -SLOTS // RANKS :] = -1
        for policy in (vllm.DefaultEplbPolicy, Repairing):
            placement = self.rebalance(policy, self.windows[0], grown, (1, 1))
            self.assertTrue((placement >= 0).all())
            theirs = self.theirs.rebalance_experts(self.windows[0], SLOTS, 1, 1, RANKS, grown)
            for a, b in zip(*(even_imbalance(self.windows[0], p) for p in (placement, theirs))):
                self.assertAlmostEqual(a, b, delta=LOAD_TOLERANCE)


class SGLang(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.location, cls.theirs, cls.elastic, cls.torch = engine_modules(
            "sglang.srt.eplb.expert_location", "sglang.srt.eplb.eplb_algorithms", "sglang.srt.elastic_ep.elastic_ep", "torch"
        )

    def setUp(self):
        self.steps = self.torch.tensor(golden.skewed_loads(1, (3, LAYERS, EXPERTS)))

    def metadata(self, algorithms, name, groups, nodes, active=None):
        """ExpertLocationMetadata.init_by_eplb with the given module in place of eplb_algorithms."""
        if not hasattr(self.location, "get_exec"):
            self.skipTest("this SGLang keeps its settings elsewhere than 0.5.23")
        moe = types.SimpleNamespace(
            eplb_algorithm=name, ep_num_redundant_experts=SLOTS - EXPERTS, ep_dispatch_algorithm="lp", ep_join_mode=None
        )
        parallel = types.SimpleNamespace(ep_size=RANKS, nnodes=nodes, elastic_ep_initial_size=None)
        model = self.location.ModelConfigForExpertLocation(num_layers=LAYERS, num_logical_experts=EXPERTS, num_groups=groups)
        state = types.SimpleNamespace(
            active_ranks=self.torch.ones(RANKS, dtype=self.torch.int32) if active is None else self.torch.tensor(active)
        )
        import sglang.srt.eplb as package

        with contextlib.ExitStack() as stack:
            for target, attribute, value in (
                (self.location, "get_device", lambda: types.SimpleNamespace(device="cpu")),
                (self.location, "get_exec", lambda: types.SimpleNamespace(moe=moe)),
                (self.location, "get_parallel", lambda: parallel),
                (self.location.ModelConfigForExpertLocation, "from_model_config", lambda config: model),
                (self.elastic.ElasticEPStateManager, "_instance", state),
                (package, "eplb_algorithms", algorithms),
            ):
                stack.enter_context(mock.patch.object(target, attribute, value))
            return self.location.ExpertLocationMetadata.init_by_eplb(None, self.steps)

    def test_the_line_to_replace_is_there(self):
        source = inspect.getsource(self.location)
        self.assertEqual(source.count("        from sglang.srt.eplb import eplb_algorithms\n"), 1)
        self.assertEqual(source.count("import eplb_algorithms"), 1)

    def test_every_name_is_known_here(self):
        names = [algorithm.name for algorithm in self.theirs.EplbAlgorithm]
        for name in [*names, "auto"]:
            for groups, nodes in ((8, 2), (None, 1), (8, 3)):
                self.assertEqual(
                    sglang.compute_algorithm(name, groups, nodes).name,
                    self.theirs.compute_algorithm(name, groups, nodes).name,
                )

    def test_the_signature_takes_what_it_passes(self):
        ours = list(inspect.signature(sglang.rebalance_experts).parameters)
        theirs = list(inspect.signature(self.theirs.rebalance_experts).parameters)
        self.assertEqual(ours[: len(theirs)], theirs)

    def test_its_metadata_is_the_same(self):
        cases = [("auto", 8, 2), ("auto", None, 1), ("deepseek", 8, 2), ("deepseek_hierarchical", 8, 2),
                 ("elasticity_aware", 8, 2), ("elasticity_aware_hierarchical", 8, 2)]  # fmt: skip
        for case in cases:
            with self.subTest(case=case):
                ours, theirs = (self.metadata(algorithms, *case) for algorithms in (sglang, self.theirs))
                self.expect_like(ours, theirs, case)
        lost = [1, 0, 1, 1, 1, 1, 0, 1]
        for name in ("elasticity_aware", "elasticity_aware_hierarchical"):
            ours, theirs = (self.metadata(algorithms, name, 8, 2, lost) for algorithms in (sglang, self.theirs))
            self.expect_like(ours, theirs, (name, "without two ranks"))

    def expect_like(self, ours, theirs, case):
        for field in ("physical_to_logical_map", "logical_to_all_physical_map", "logical_to_all_physical_map_num_valid"):
            a, b = getattr(ours, field), getattr(theirs, field)
            self.assertEqual((a.dtype, a.device, a.shape), (b.dtype, b.device, b.shape), (case, field))
        self.assertEqual((ours.ep_size, ours.num_local_physical_experts), (theirs.ep_size, theirs.num_local_physical_experts))
        counts = [m.logical_to_all_physical_map_num_valid for m in (ours, theirs)]
        loads = [self.rank_loads(m) for m in (ours, theirs)]
        self.assertTrue(self.torch.allclose(*loads, rtol=LOAD_TOLERANCE), case)
        self.assertEqual(*(sorted(count.flatten().tolist()) for count in counts), case)

    def rank_loads(self, metadata):
        """Tokens of each rank under an even split, sorted [layers, ranks]: from the table of an expert's slots."""
        weight = self.steps.sum(0).double()
        loads = self.torch.zeros((LAYERS, RANKS), dtype=self.torch.double)
        for layer in range(LAYERS):
            for expert in range(EXPERTS):
                slots = metadata.logical_to_all_physical(layer, expert)
                for slot in slots:
                    self.assertEqual(int(metadata.physical_to_logical_map[layer, slot]), expert)
                    loads[layer, slot // (SLOTS // RANKS)] += weight[layer, expert] / len(slots)
        return loads.sort(dim=1).values

    def test_its_metadata_takes_wideloads_own(self):
        best = {}
        for name in ("deepseek", "scenario", "scenario_hierarchical", "tensorrt_llm"):
            metadata = self.metadata(sglang, name, 8, 2)
            self.rank_loads(metadata)
            best[name] = wideload_eplb.imbalance(
                self.steps, metadata.physical_to_logical_map, RANKS, split="optimal"
            ).mean()
        self.assertLess(best["scenario"], best["deepseek"])


if __name__ == "__main__":
    unittest.main()
