"""vLLM's expert balancing policy, same signature: use `DefaultEplbPolicy` of this module in place of that of
`vllm.distributed.eplb.policy`.

Tried with vLLM 0.33.0 and the interface of 0.19 and later, which expect one map as result
(vllm/distributed/eplb/policy/abstract.py). 0.14 to 0.18 expect three maps: take `ThreeMapsEplbPolicy`.
"""

from __future__ import annotations

import wideload_eplb

from . import _arrays

__all__ = ["DefaultEplbPolicy", "ThreeMapsEplbPolicy", "WideloadEplbPolicy"]


def _covers(placement, num_experts: int) -> bool:
    """Whether every layer holds every expert and nothing else."""
    return all(set(row) == set(range(num_experts)) for row in placement.tolist())


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
        expert that each slot holds now, -1 for none: ranks are renamed within their node so that few slots change, and
        experts that stay on a rank keep their slot. Not used where it has not the shape of the new placement, as after
        ranks were taken away, or where an expert has no slot or a slot no expert, as after ranks were added: then the
        placement is planned anew.

        Returns int64 [layers, num_replicas]: the expert of each slot; a tensor on the CPU if weight is a tensor.
        Errors: ValueError for sizes that do not divide and bad loads.
        """
        old = None
        if old_global_expert_indices is not None:
            old = _arrays.to_numpy(old_global_expert_indices, "old_global_expert_indices")
            if old.shape != (weight.shape[0], num_replicas) or not _covers(old, weight.shape[1]):
                old = None
        if old is not None and cls.max_fetched_slots is not None:
            nodes = cls._nodes(num_groups, num_nodes)
            repaired = wideload_eplb.repair(old, weight, num_ranks, max_fetched_slots=cls.max_fetched_slots, **nodes)
            return _arrays.like(weight, repaired.placement)
        options = {"num_groups": num_groups, "num_nodes": num_nodes} if cls.policy == "deepseek" else {}
        if cls.policy == "scenario":
            options = cls._nodes(num_groups, num_nodes)
        return wideload_eplb.plan(weight, num_replicas, num_ranks, policy=cls.policy, current=old, **options)


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
