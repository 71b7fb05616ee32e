"""vLLM's expert balancing policy, same signature: use `DefaultEplbPolicy` of this module in place of that of
`vllm.distributed.eplb.policy`.

Tried with vLLM 0.33.0 and the interface of 0.19 and later, which expect one map as result
(vllm/distributed/eplb/policy/abstract.py). 0.14 to 0.18 expect three maps: take `ThreeMapsEplbPolicy`.
"""

from __future__ import annotations

import numpy as np

import wideload_eplb

from . import _arrays

__all__ = ["DefaultEplbPolicy", "ThreeMapsEplbPolicy", "WideloadEplbPolicy"]


def _keep_slots(placement: np.ndarray, old: np.ndarray, num_ranks: int) -> np.ndarray:
    """placement with the slots within each rank in such an order that experts it holds already keep their place."""
    result = placement.copy()
    local = placement.shape[1] // num_ranks
    for layer, begin in np.ndindex(placement.shape[0], num_ranks):
        part = slice(begin * local, (begin + 1) * local)
        new, before = placement[layer, part].tolist(), old[layer, part].tolist()
        kept = [None] * local
        for slot, expert in enumerate(before):
            if expert in new:
                new.remove(expert)
                kept[slot] = expert
        result[layer, part] = [new.pop(0) if expert is None else expert for expert in kept]
    return result


def _is_whole(placement: np.ndarray, num_experts: int) -> bool:
    """Whether every slot holds an expert and every expert has a slot."""
    return all(np.array_equal(np.unique(row), np.arange(num_experts)) for row in placement)


class WideloadEplbPolicy:
    """Placements by `policy`, one of `wideload_eplb.policies()`, or by repair of the old placement.

    vLLM deals out an expert's tokens evenly, so the default is "deepseek", hierarchical where num_groups is a multiple
    of num_nodes. Subclass to change a setting.
    """

    policy = "deepseek"
    # None: plan anew every time. A number: change the old placement by at most so many fetched slots per layer
    # (wideload_eplb.repair), which moves far fewer weights and balances for a split that follows each batch.
    max_fetched_slots = None
    # Slots per layer that may hold an expert of another node, for repair and the policy "scenario" where groups are
    # kept on nodes (num_groups is a multiple of several nodes); None: see `plan` and `repair`.
    cross_node_slots = None

    @classmethod
    def _nodes(cls, num_groups, num_nodes):
        """What `repair` and the policy "scenario" take: nodes only where DeepSeek's policy is hierarchical, too."""
        if num_nodes == 1 or num_groups % num_nodes != 0:
            return {}
        return {"num_groups": num_groups, "num_nodes": num_nodes, "cross_node_slots": cls.cross_node_slots}

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None):
        """A placement for recorded loads.

        weight: [layers, experts] tokens. num_replicas: slots per layer. num_groups: expert groups of the router.
        num_nodes: nodes. num_ranks: ranks, a multiple of num_nodes. old_global_expert_indices: [layers, slots], the
        expert that each slot holds now, -1 for none: experts that stay on a rank keep their slot. Not used where it has
        not the shape of the new placement, as after ranks were taken away; not repaired where an expert has no slot or a
        slot no expert, as after ranks were added: then the placement is planned anew.

        Returns int64 [layers, num_replicas]: the expert of each slot; a tensor on the CPU if weight is a tensor.
        Errors: ValueError for sizes that do not divide and bad loads.
        """
        old = None
        if old_global_expert_indices is not None:
            old = _arrays.to_numpy(old_global_expert_indices, "old_global_expert_indices")
            if old.shape != (weight.shape[0], num_replicas):
                old = None
        if old is not None and cls.max_fetched_slots is not None and _is_whole(old, weight.shape[1]):
            nodes = cls._nodes(num_groups, num_nodes)
            repaired = wideload_eplb.repair(old, weight, num_ranks, max_fetched_slots=cls.max_fetched_slots, **nodes)
            return _arrays.like(weight, repaired.placement)
        options = {"num_groups": num_groups, "num_nodes": num_nodes} if cls.policy == "deepseek" else {}
        if cls.policy == "scenario":
            options = cls._nodes(num_groups, num_nodes)
        placement = wideload_eplb.plan(weight, num_replicas, num_ranks, policy=cls.policy, **options)
        if old is None:
            return placement
        return _arrays.like(weight, _keep_slots(_arrays.to_numpy(placement, "placement"), old, num_ranks))


class ThreeMapsEplbPolicy(WideloadEplbPolicy):
    """The same for vLLM 0.14 to 0.18."""

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None):
        """As WideloadEplbPolicy. Returns (physical_to_logical_map, logical_to_physical_map [layers, experts, X] padded
        with -1, expert_count [layers, experts])."""
        placement = super().rebalance_experts(
            weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices
        )
        tables = _arrays.tables(_arrays.to_numpy(placement, "placement"), weight.shape[1])
        return (placement, *(_arrays.like(weight, table) for table in tables))


DefaultEplbPolicy = WideloadEplbPolicy
