"""vLLM's expert balancing policy, same signature. This package is a plugin of vLLM: where WIDELOAD_EPLB_POLICY names one of
`wideload_eplb.policies()`, vLLM's default policy is that one. Without the variable nothing changes.

Tried with vLLM 0.33.0 and the interface of 0.19 and later, which expect one map as result
(vllm/distributed/eplb/policy/abstract.py). 0.14 to 0.18 expect three maps: take `ThreeMapsEplbPolicy`.
"""

from __future__ import annotations

import os

import wideload_eplb

from . import _arrays

__all__ = ["DefaultEplbPolicy", "ThreeMapsEplbPolicy", "WideloadEplbPolicy", "register"]


def _covers(placement, num_experts: int) -> bool:
    """Whether every layer holds every expert and nothing else."""
    return all(set(row) == set(range(num_experts)) for row in placement.tolist())


class WideloadEplbPolicy:
    """Placements by `policy`, one of `wideload_eplb.policies()`, or by repair of the old placement.

    vLLM deals out an expert's tokens evenly and gives its policy one sum of loads, so the default is "deepseek",
    hierarchical where num_groups is a multiple of num_nodes; "even" needs several recorded batches to be better.
    Subclass to change a setting.
    """

    policy = "deepseek"
    # None: plan anew every time. A number: change the old placement by at most so many fetched slots per layer
    # (wideload_eplb.repair), which moves far fewer weights. Balanced for vLLM's own even split.
    max_fetched_slots = None
    # Slots per layer that may hold an expert of another node, for repair and the policies "even" and "scenario" where groups are
    # kept on nodes (num_groups is a multiple of several nodes); None: see `plan` and `repair`.
    cross_node_slots = None

    @classmethod
    def _nodes(cls, num_groups, num_nodes):
        """What `repair` and policies that bound such slots take: nodes only where DeepSeek's is hierarchical, too."""
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
            repaired = wideload_eplb.repair(
                old, weight, num_ranks, max_fetched_slots=cls.max_fetched_slots, split="even", **nodes
            )
            return _arrays.like(weight, repaired.placement)
        options = {}
        if wideload_eplb.has_property(cls.policy, "bounds_cross_slots"):
            options = cls._nodes(num_groups, num_nodes)
        elif wideload_eplb.has_property(cls.policy, "looks_at_nodes"):
            options = {"num_groups": num_groups, "num_nodes": num_nodes}
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


def register() -> None:
    """What vLLM calls in each of its processes (entry point of the group vllm.general_plugins).

    Errors: ValueError for a name in WIDELOAD_EPLB_POLICY that is none of `policies()`; RuntimeError for a vLLM without the
    table of policies that a plugin can change.
    """
    name = os.environ.get("WIDELOAD_EPLB_POLICY", "")
    if not name:
        return
    if name not in wideload_eplb.policies():
        raise ValueError(f'WIDELOAD_EPLB_POLICY is "{name}"; allowed: {", ".join(wideload_eplb.policies())}')
    from vllm.distributed.eplb import policy as theirs

    if not hasattr(theirs, "EPLB_POLICIES"):
        raise RuntimeError("WIDELOAD_EPLB_POLICY: this vLLM has no EPLB_POLICIES; see docs/howto/eplb-from-python.md")
    theirs.EPLB_POLICIES["default"] = type("WideloadEplbPolicy", (WideloadEplbPolicy,), {"policy": name})
