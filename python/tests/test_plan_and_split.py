import unittest

import numpy as np

import golden
import wideload_eplb

LAYERS, EXPERTS, SLOTS, RANKS = 3, 16, 24, 4


def rank_tokens(slot_tokens, ranks=RANKS):
    return slot_tokens.reshape(*slot_tokens.shape[:-1], ranks, -1).sum(-1)


class Plan(unittest.TestCase):
    def test_every_policy_places_every_expert_in_every_layer(self):
        loads = golden.skewed_loads(1, (5, LAYERS, EXPERTS))
        self.assertEqual(set(wideload_eplb.policies()), {"contiguous", "tensorrt_llm", "deepseek", "even", "scenario"})
        for policy in wideload_eplb.policies():
            placement = wideload_eplb.plan(loads, SLOTS, RANKS, policy=policy)
            self.assertEqual((placement.shape, placement.dtype), ((LAYERS, SLOTS), np.int64))
            for row in placement:
                self.assertEqual(set(row), set(range(EXPERTS)))

    def test_deepseek_is_rebalance_experts(self):
        loads = golden.skewed_loads(2, (LAYERS, EXPERTS))
        placement = wideload_eplb.plan(loads, SLOTS, RANKS, policy="deepseek", num_groups=4, num_nodes=2)
        np.testing.assert_array_equal(placement, wideload_eplb.rebalance_experts(loads, SLOTS, 4, 2, RANKS)[0])

    def test_names_ranks_after_what_they_hold(self):
        loads = golden.skewed_loads(7, (4, LAYERS, EXPERTS))
        for policy in ("tensorrt_llm", "deepseek", "scenario"):
            plan = wideload_eplb.plan(loads, SLOTS, RANKS, policy=policy)
            turned = np.roll(plan, SLOTS // RANKS, axis=1)  # every rank has the next one's number
            again = wideload_eplb.plan(loads, SLOTS, RANKS, policy=policy, current=turned)
            np.testing.assert_array_equal(again, turned)
        with self.assertRaisesRegex(ValueError, rf"current has {SLOTS - RANKS} slots; it must have {SLOTS}"):
            wideload_eplb.plan(loads, SLOTS, RANKS, current=plan[:, : SLOTS - RANKS])

    def test_weighs_fetches_against_their_price(self):
        loads = golden.skewed_loads(7, (4, LAYERS, EXPERTS))
        now = wideload_eplb.plan(golden.skewed_loads(8, (4, LAYERS, EXPERTS)), SLOTS, RANKS)
        fetched, imbalance = [], []
        for price in (0, 1e-3, 1e-2, 1e9):
            plan = wideload_eplb.plan(loads, SLOTS, RANKS, current=now, fetch_price=price)
            fetched.append(int((plan != now).sum()))
            imbalance.append(wideload_eplb.imbalance(loads, plan, RANKS, split="optimal_fractional").mean())
        self.assertEqual(fetched, sorted(fetched, reverse=True))
        self.assertGreater(fetched[0], fetched[2])
        self.assertGreater(fetched[2], 0)
        self.assertLess(imbalance[2], imbalance[3])
        self.assertEqual(fetched[3], 0)
        free = wideload_eplb.plan(loads, SLOTS, RANKS, current=now)
        np.testing.assert_array_equal(free, wideload_eplb.plan(loads, SLOTS, RANKS, current=now, fetch_price=0))

    def test_refuses_a_price_with_nothing_to_weigh(self):
        loads = golden.skewed_loads(5, (LAYERS, EXPERTS))
        now = wideload_eplb.plan(loads, SLOTS, RANKS)
        for price in (-1, float("nan"), float("inf")):
            with self.assertRaisesRegex(ValueError, "fetch_price is .*; allowed: 0 or more, finite"):
                wideload_eplb.plan(loads, SLOTS, RANKS, current=now, fetch_price=price)
        with self.assertRaisesRegex(ValueError, 'fetch_price is 0.1 with policy "scenario" and no current'):
            wideload_eplb.plan(loads, SLOTS, RANKS, fetch_price=0.1)
        with self.assertRaisesRegex(ValueError, 'fetch_price is 0.1 with policy "deepseek" and current'):
            wideload_eplb.plan(loads, SLOTS, RANKS, policy="deepseek", current=now, fetch_price=0.1)
        with self.assertRaisesRegex(TypeError, "fetch_price is 'dear'"):
            wideload_eplb.plan(loads, SLOTS, RANKS, current=now, fetch_price="dear")

    def test_scenario_keeps_groups_on_nodes_but_for_some_slots(self):
        loads = golden.skewed_loads(6, (4, LAYERS, EXPERTS))
        for cross in (0, 1, None):
            placement = wideload_eplb.plan(loads, SLOTS, RANKS, num_groups=4, num_nodes=2, cross_node_slots=cross)
            for row in placement:
                nodes = [set(half) for half in row.reshape(2, SLOTS // 2)]
                self.assertLessEqual(len(nodes[0] & nodes[1]), 2 if cross is None else cross)
                for group in range(4):
                    experts = set(range(group * EXPERTS // 4, (group + 1) * EXPERTS // 4))
                    self.assertTrue(any(experts <= node for node in nodes), group)

    def test_scenario_plans_beat_parity_plans_under_the_optimal_split(self):
        loads = golden.skewed_loads(3, (8, LAYERS, EXPERTS))
        of = {
            policy: wideload_eplb.imbalance(
                loads, wideload_eplb.plan(loads, SLOTS, RANKS, policy=policy), RANKS, split="optimal"
            ).mean()
            for policy in ("deepseek", "scenario")
        }
        self.assertLess(of["scenario"], of["deepseek"])

    def test_does_not_depend_on_threads(self):
        loads = golden.skewed_loads(4, (6, LAYERS, EXPERTS))
        one = wideload_eplb.plan(loads, SLOTS, RANKS, seed=7, num_threads=1)
        np.testing.assert_array_equal(one, wideload_eplb.plan(loads, SLOTS, RANKS, seed=7, num_threads=3))

    def test_refuses_what_a_policy_cannot_do(self):
        loads = golden.skewed_loads(5, (LAYERS, EXPERTS))
        with self.assertRaisesRegex(ValueError, 'policy is "best"; allowed: contiguous, tensorrt_llm'):
            wideload_eplb.plan(loads, SLOTS, RANKS, policy="best")
        with self.assertRaisesRegex(ValueError, "num_nodes 2"):
            wideload_eplb.plan(loads, SLOTS, RANKS, policy="tensorrt_llm", num_nodes=2)
        with self.assertRaisesRegex(ValueError, "cross_node_slots is 1"):
            wideload_eplb.plan(loads, SLOTS, RANKS, cross_node_slots=1)
        for slots, ranks in ((15, 3), (25, 4)):
            with self.assertRaisesRegex(ValueError, "num_slots is"):
                wideload_eplb.plan(loads, slots, ranks)
        with self.assertRaisesRegex(ValueError, "seed is -1"):
            wideload_eplb.plan(loads, SLOTS, RANKS, seed=-1)


class Split(unittest.TestCase):
    def setUp(self):
        self.counts = golden.skewed_loads(6, (5, LAYERS, EXPERTS))
        self.placement = wideload_eplb.plan(self.counts, SLOTS, RANKS)

    def expect_adds_up(self, tokens, counts, places):
        for index in np.ndindex(*counts.shape[:-1]):
            given = np.zeros(EXPERTS)
            np.add.at(given, self.placement[index[-1]], tokens[index])
            np.testing.assert_allclose(given, counts[index], atol=10.0**-places)

    def test_whole_quotas_add_up_and_reach_the_rounded_optimum(self):
        quotas = wideload_eplb.split(self.counts, self.placement, RANKS)
        self.assertEqual((quotas.shape, quotas.dtype), ((5, LAYERS, SLOTS), np.int64))
        self.expect_adds_up(quotas, self.counts, places=12)
        shares = wideload_eplb.split(self.counts, self.placement, RANKS, fractional=True)
        self.expect_adds_up(shares, self.counts, places=6)
        optimum = rank_tokens(shares).max(-1)
        np.testing.assert_array_equal(rank_tokens(quotas).max(-1), np.ceil(optimum - 1e-6))

    def test_imbalance_is_that_of_the_split(self):
        for name, tokens in (
            ("optimal", wideload_eplb.split(self.counts, self.placement, RANKS)),
            ("optimal_fractional", wideload_eplb.split(self.counts, self.placement, RANKS, fractional=True)),
        ):
            ranks = rank_tokens(tokens)
            np.testing.assert_allclose(
                wideload_eplb.imbalance(self.counts, self.placement, RANKS, split=name),
                ranks.max(-1) / ranks.mean(-1) - 1,
                atol=1e-9,
            )
        even = wideload_eplb.imbalance([[6, 2]], [[0, 0, 0, 1]], 2)
        np.testing.assert_allclose(even, [0.0])  # 2 + 2 | 2 + 2

    def test_one_row_stands_for_all_layers_and_one_batch_needs_no_first_axis(self):
        row = self.placement[0]
        whole = wideload_eplb.split(self.counts[0], np.tile(row, (LAYERS, 1)), RANKS)
        self.assertEqual(whole.shape, (LAYERS, SLOTS))
        np.testing.assert_array_equal(whole, wideload_eplb.split(self.counts[0], row, RANKS))
        self.assertEqual(wideload_eplb.imbalance(self.counts[0], row, RANKS).shape, (LAYERS,))

    def test_a_dead_rank_gets_nothing(self):
        placement = [[0, 1, 1, 2, 2, 0]]
        shares = wideload_eplb.split([[30, 30, 30]], placement, 3, fractional=True, rank_speed=[1, 0, 1])
        np.testing.assert_allclose(shares.reshape(3, 2).sum(1), [45, 0, 45])
        # Experts 1 and 2 without tokens need no live slot; with tokens they do.
        wideload_eplb.split([[30, 0, 0]], placement, 3, fractional=True, rank_speed=[1, 0, 0])
        with self.assertRaisesRegex(ValueError, "layer 0: 20 tokens are of experts.*rank_speed 0.*live rank"):
            wideload_eplb.split([[30, 30, 20]], placement, 3, fractional=True, rank_speed=[1, 0, 0])

    def test_does_not_depend_on_threads(self):
        for fractional in (False, True):
            np.testing.assert_array_equal(
                *(
                    wideload_eplb.split(self.counts, self.placement, RANKS, fractional=fractional, num_threads=n)
                    for n in (1, 3)
                )
            )

    def test_refuses_placements_and_counts_that_do_not_fit(self):
        with self.assertRaisesRegex(ValueError, "layer 0: expert 2 has no slot"):
            wideload_eplb.split([[1, 1, 1]], [[0, 1, 1]], 3)
        with self.assertRaisesRegex(ValueError, "holds expert 3; allowed: 0 to 2"):
            wideload_eplb.split([[1, 1, 1]], [[0, 3, 1]], 3)
        with self.assertRaisesRegex(ValueError, "has 2 layers; the loads have 3"):
            wideload_eplb.split(self.counts, self.placement[:2], RANKS)
        with self.assertRaisesRegex(ValueError, "multiple of 5"):
            wideload_eplb.split(self.counts, self.placement, 5)
        with self.assertRaisesRegex(ValueError, r"counts\[0, 0\] is 0.5"):
            wideload_eplb.split([[0.5, 1]], [[0, 1]], 2)
        with self.assertRaisesRegex(ValueError, "whole numbers up to 2147483647"):
            wideload_eplb.split([[2**31, 1]], [[0, 1]], 2)
        with self.assertRaisesRegex(ValueError, "need fractional=True"):
            wideload_eplb.split([[1, 1]], [[0, 1]], 2, rank_speed=[1, 1])
        with self.assertRaisesRegex(ValueError, r"rank_speed has shape \[3\]"):
            wideload_eplb.split([[1, 1]], [[0, 1]], 2, fractional=True, rank_speed=[1, 1, 1])
        with self.assertRaisesRegex(ValueError, "round_robin"):
            wideload_eplb.imbalance([[1, 1]], [[0, 1]], 2, split="round_robin")


class RepairAndBounds(unittest.TestCase):
    def setUp(self):
        self.before = golden.skewed_loads(12, (4, LAYERS, EXPERTS))
        self.after = golden.skewed_loads(13, (4, LAYERS, EXPERTS))
        self.placement = wideload_eplb.plan(self.before, SLOTS, RANKS)

    def test_repair_improves_within_its_budget(self):
        result = wideload_eplb.repair(self.placement, self.after, RANKS, max_fetched_slots=3)
        self.assertTrue((result.fetched_slots <= 3).all() and result.fetched_slots.any())
        self.assertTrue((result.imbalance_after <= result.imbalance_before).all())
        measured = wideload_eplb.imbalance(self.after, result.placement, RANKS, split="optimal_fractional").mean(0)
        np.testing.assert_allclose(measured, result.imbalance_after, atol=1e-6)
        none = wideload_eplb.repair(self.placement, self.after, RANKS, max_fetched_slots=0)
        np.testing.assert_array_equal(none.placement, self.placement)

    def test_repair_for_an_even_split_lowers_that_splits_imbalance(self):
        result = wideload_eplb.repair(self.placement, self.after, RANKS, max_fetched_slots=4, split="even")
        self.assertTrue((result.fetched_slots <= 4).all() and result.fetched_slots.any())
        before, after = (
            wideload_eplb.imbalance(self.after, p, RANKS, split="even").mean(0) for p in (self.placement, result.placement)
        )
        np.testing.assert_allclose(before, result.imbalance_before, atol=1e-9)
        np.testing.assert_allclose(after, result.imbalance_after, atol=1e-9)
        self.assertTrue((after < before).all())

    def test_repair_does_not_depend_on_threads_and_stops_at_until(self):
        one, three = (wideload_eplb.repair(self.placement, self.after, RANKS, num_threads=n) for n in (1, 3))
        for a, b in zip(one, three):
            np.testing.assert_array_equal(a, b)
        lazy = wideload_eplb.repair(self.placement, self.after, RANKS, until=10.0)
        self.assertEqual(lazy.fetched_slots.tolist(), [0] * LAYERS)

    def test_a_dead_ranks_experts_find_a_live_slot(self):
        placement = np.arange(SLOTS) % EXPERTS  # rank 1 holds experts 6 .. 11, of which 8 .. 11 live nowhere else
        result = wideload_eplb.repair(
            placement, np.ones((1, EXPERTS)), RANKS, max_fetched_slots=0, rank_speed=[1, 0, 1, 1]
        )
        alive = np.delete(result.placement, slice(6, 12), axis=1)
        self.assertEqual(set(alive[0]), set(range(EXPERTS)))
        self.assertEqual(result.fetched_slots.tolist(), [4])
        with self.assertRaises(RuntimeError):
            wideload_eplb.repair(placement, np.ones((1, EXPERTS)), RANKS, rank_speed=[1, 0, 0, 0])

    def test_decay_weighs_older_batches_less(self):
        two = self.after[:2]
        older, newer = wideload_eplb.imbalance(two, self.placement, RANKS, split="optimal_fractional")
        result = wideload_eplb.repair(self.placement, two, RANKS, decay=0.25, max_fetched_slots=0)
        np.testing.assert_allclose(result.imbalance_before, (0.25 * older + newer) / 1.25, atol=1e-6)

    def test_a_layer_without_load_stays(self):
        result = wideload_eplb.repair(self.placement, self.after * [[[1], [0], [1]]], RANKS)
        np.testing.assert_array_equal(result.placement[1], self.placement[1])
        self.assertEqual(result.imbalance_after[1], 0)

    def test_no_placement_is_below_the_capacity_bound(self):
        bounds = wideload_eplb.bounds(self.before, SLOTS, RANKS)
        self.assertEqual((bounds.replica_capacity.shape, bounds.components.shape), ((4, LAYERS), (LAYERS,)))
        for policy in wideload_eplb.policies():
            placement = wideload_eplb.plan(self.before, SLOTS, RANKS, policy=policy)
            ratios = wideload_eplb.imbalance(self.before, placement, RANKS, split="optimal_fractional")
            self.assertTrue((ratios >= bounds.replica_capacity - 1e-9).all())
        one = wideload_eplb.bounds([[97, 1, 1, 1]], 4, 4)  # one expert of 97 on one rank, the mean is 25
        np.testing.assert_allclose(one.replica_capacity, [97 / 25 - 1])
        self.assertGreater(one.sampling_floor[0], 0)

    def test_repair_keeps_experts_on_their_nodes(self):
        local = SLOTS // 2  # of a node
        start = wideload_eplb.plan(self.before.sum(0), SLOTS, RANKS, policy="deepseek", num_groups=4, num_nodes=2)

        def crossing(placement):  # slots whose expert's node in the start is the other one
            home = np.array([[expert in row[local:] for expert in range(EXPERTS)] for row in start])
            return (np.take_along_axis(home, placement, 1) != (np.arange(SLOTS) >= local)).sum(1)

        self.assertEqual(crossing(start).tolist(), [0] * LAYERS)
        nodes = dict(max_fetched_slots=8, num_groups=4, num_nodes=2)
        flat = wideload_eplb.repair(start, self.after, RANKS, max_fetched_slots=8).placement
        self.assertGreater(crossing(flat).max(), 2)
        for cross_node_slots, most in ((0, 0), (1, 1), (None, 2)):
            kept = wideload_eplb.repair(start, self.after, RANKS, cross_node_slots=cross_node_slots, **nodes)
            self.assertTrue((kept.fetched_slots > 0).any())
            self.assertLessEqual(crossing(kept.placement).max(), most)
        self.assertEqual(crossing(kept.placement).max(), 2)
        with self.assertRaisesRegex(ValueError, "cross_node_slots is 1, but [2-9]"):
            wideload_eplb.repair(flat, self.after, RANKS, cross_node_slots=1, **nodes)
        with self.assertRaisesRegex(ValueError, 'split is "random"; allowed: even, optimal'):
            wideload_eplb.repair(flat, self.after, RANKS, split="random")

    def test_refuses_options_out_of_range(self):
        for message, change in (
            ("cross_node_slots is 1 with num_nodes 1", dict(cross_node_slots=1)),
            ("num_nodes is 3; it must divide", dict(num_nodes=3)),
            ("num_groups is 3; it must divide", dict(num_nodes=2, num_groups=3)),
            ("cross_node_slots is -1", dict(num_nodes=2, cross_node_slots=-1)),
            ("decay is 0", dict(decay=0)),
            ("max_fetched_slots is -1", dict(max_fetched_slots=-1)),
            ("until is nan", dict(until=float("nan"))),
            ("rank_speed has shape", dict(rank_speed=[1])),
            ("rank_speed is", dict(rank_speed=[1, 1, -1, 1])),
        ):
            with self.assertRaisesRegex(ValueError, message):
                wideload_eplb.repair(self.placement, self.after, RANKS, **change)


class Simulate(unittest.TestCase):
    def test_optimal_split_beats_even_split(self):
        trace = golden.trace(8, 1200, 2, EXPERTS, 2)
        answer = wideload_eplb.simulate(
            trace,
            SLOTS,
            RANKS,
            tokens_per_iteration=100,
            splits=["even", "round_robin", "optimal", "optimal_fractional"],
        )
        self.assertEqual(len(answer["results"]), 12)
        by = {(r["policy"], r["split"]): r for r in answer["results"]}
        scenario = by["scenario", "optimal"]
        self.assertEqual(scenario["imbalance"].shape, (2, 6))  # the second half of 12 iterations
        self.assertLess(scenario["imbalance_mean"], by["scenario", "even"]["imbalance_mean"])
        self.assertLessEqual(by["scenario", "optimal_fractional"]["imbalance_mean"], scenario["imbalance_mean"] + 1e-12)
        self.assertEqual(scenario["imbalance_p99"], scenario["imbalance"].max())  # of 12 values
        self.assertGreater(answer["clairvoyant"], 0)

    def test_even_split_is_that_of_imbalance(self):
        trace = golden.trace(9, 400, 2, EXPERTS, 2)
        answer = wideload_eplb.simulate(
            trace, SLOTS, RANKS, tokens_per_iteration=100, policies=["contiguous"], splits=["even"]
        )
        counts = np.stack(
            [
                [np.bincount(part[:, layer].ravel(), minlength=EXPERTS) for layer in range(2)]
                for part in np.split(trace, 4)
            ]
        )
        placement = wideload_eplb.plan(counts, SLOTS, RANKS, policy="contiguous")
        np.testing.assert_allclose(
            answer["results"][0]["imbalance"], wideload_eplb.imbalance(counts[2:], placement, RANKS).T
        )

    def test_replays_decoding_and_tasks(self):
        trace = golden.trace(10, 300, 1, EXPERTS, 2)
        answer = wideload_eplb.simulate(
            trace,
            SLOTS,
            RANKS,
            document_tokens=[50] * 6,
            decode=(10, 50),
            record="alternate_answers",
            answer_stride=5,
            policies=["scenario"],
            num_threads=2,
        )
        self.assertEqual(answer["results"][0]["imbalance"].shape, (1, 5))
        tasks = {"law": trace[:200], "code": trace[200:]}
        answer = wideload_eplb.simulate(
            tasks,
            SLOTS,
            RANKS,
            tokens_per_iteration=25,
            record="half_per_task",
            document_tokens={"law": [120, 80], "code": [100]},
            policies=["tensorrt_llm"],
        )
        self.assertEqual(answer["results"][0]["imbalance"].shape, (1, 4 + 2))

    def test_refuses_what_is_not_allowed(self):
        trace = golden.trace(11, 100, 1, EXPERTS, 2)
        good = dict(expert_ids=trace, num_slots=SLOTS, num_ranks=RANKS, tokens_per_iteration=10)
        for message, change in (
            ("num_experts is 3", dict(num_experts=3)),
            ("record is", dict(record="all")),
            ("splits is 'even'", dict(splits="even")),
            ("split", dict(splits=["odd"])),
            ("policy is", dict(policies=["best"])),
            ("add up", dict(document_tokens=[10, 20])),
            ("exclude each other", dict(decode=(1, 10))),
            ("multiple of", dict(num_slots=25)),
            ("stride", dict(answer_stride=2, document_tokens=[50, 50])),
            ("10 to record|to record", dict(tokens_per_iteration=90)),
            ("ids from", dict(expert_ids=trace.astype(np.int64) - 5)),
            ("integers", dict(expert_ids=trace[:, 0])),
        ):
            with self.assertRaisesRegex(ValueError, message):
                wideload_eplb.simulate(**{**good, **change})


if __name__ == "__main__":
    unittest.main()
