"""SGLang's expert balancing algorithms, same names and signatures: import this module in place of
`sglang.srt.eplb.eplb_algorithms`.

Tried with SGLang 0.5.23 (python/sglang/srt/eplb/eplb_algorithms). Of its algorithms "deepseek", "elasticity_aware", both
with "_hierarchical", and "auto" are here with the same placements where no loads tie; "deepseek_vec" and
"deepseek_vec_hierarchical" are refused. wideload's own policies use the recorded steps one by one: "even", made for SGLang's
`--ep-dispatch-algorithm static` and `dynamic`, and "scenario", made for a split that follows the load of each batch (`lp`); both
also with "_hierarchical", which keeps expert groups on nodes. "tensorrt_llm" is TensorRT-LLM's.
"""

from __future__ import annotations

from enum import Enum, auto

import numpy as np

import wideload_eplb

from . import _arrays

__all__ = ["EplbAlgorithm", "compute_algorithm", "rebalance_experts"]


class EplbAlgorithm(Enum):
    deepseek = auto()
    deepseek_hierarchical = auto()
    deepseek_vec = auto()
    deepseek_vec_hierarchical = auto()
    elasticity_aware = auto()
    elasticity_aware_hierarchical = auto()
    scenario = auto()
    scenario_hierarchical = auto()
    tensorrt_llm = auto()
    even = auto()
    even_hierarchical = auto()


_DEEPSEEK = (
    EplbAlgorithm.deepseek,
    EplbAlgorithm.deepseek_hierarchical,
    EplbAlgorithm.elasticity_aware,
    EplbAlgorithm.elasticity_aware_hierarchical,
)
_OWN = (
    EplbAlgorithm.even,
    EplbAlgorithm.even_hierarchical,
    EplbAlgorithm.scenario,
    EplbAlgorithm.scenario_hierarchical,
    EplbAlgorithm.tensorrt_llm,
)


def compute_algorithm(raw_algorithm: str, num_groups: int | None, num_nodes: int) -> EplbAlgorithm:
    """The algorithm of a name; "auto": hierarchical where num_groups is a multiple of num_nodes, else global.

    Errors: ValueError with the names there are.
    """
    if raw_algorithm == "auto":
        hierarchical = num_groups is not None and num_groups % num_nodes == 0
        return EplbAlgorithm.deepseek_hierarchical if hierarchical else EplbAlgorithm.deepseek
    try:
        return EplbAlgorithm[raw_algorithm]
    except KeyError:
        raise ValueError(
            f"eplb algorithm is \"{raw_algorithm}\"; allowed: auto, {', '.join(a.name for a in EplbAlgorithm)}"
        ) from None


def rebalance_experts(
    tokens_per_expert,
    num_physical_experts,
    num_local_physical_experts,
    num_groups,
    num_nodes,
    algorithm,
    active_ranks=None,
):
    """Placements and their inverse from recorded steps.

    tokens_per_expert: [steps, layers, experts] tokens. num_physical_experts: slots per layer;
    num_local_physical_experts: slots of one rank. num_groups: expert groups of the router (None: no groups), num_nodes:
    nodes; used by the hierarchical algorithms only. algorithm: an EplbAlgorithm.
    active_ranks: [ranks] (or longer, with 0 beyond), for "elasticity_aware" and its hierarchical form only: ranks with 0
    get no expert, their slots are 0 in the map and in nobody's table; the plan is then global. None: what SGLang's elastic
    EP state says.

    Returns int64 (physical_to_logical_map [layers, slots], logical_to_physical_map [layers, experts, X] padded with -1,
    expert_count [layers, experts]), tensors on the CPU if tokens_per_expert is one.
    Errors: ValueError for algorithms that are not here, sizes that do not divide, bad loads.
    """
    slots = _arrays.size(num_physical_experts, "num_physical_experts")
    local = _arrays.size(num_local_physical_experts, "num_local_physical_experts")
    if slots % local != 0:
        raise ValueError(
            f"num_physical_experts is {slots}; it must be a multiple of {local} (num_local_physical_experts)"
        )
    ranks = slots // local
    if len(tokens_per_expert.shape) != 3:
        raise ValueError(
            f"tokens_per_expert has shape {list(tokens_per_expert.shape)}; it must be [steps, layers, experts]"
        )
    if algorithm in (EplbAlgorithm.elasticity_aware, EplbAlgorithm.elasticity_aware_hierarchical):
        active = _active_ranks(active_ranks, ranks)
        if not active.all():
            return _plan_active(tokens_per_expert.sum(0), slots, active)
    groups, nodes = _groups_and_nodes(algorithm, num_groups, num_nodes)
    if algorithm in _DEEPSEEK:
        return wideload_eplb.rebalance_experts(tokens_per_expert.sum(0), slots, groups, nodes, ranks)
    if algorithm in _OWN:
        policy = algorithm.name.replace("_hierarchical", "")
        on_nodes = {"num_groups": groups, "num_nodes": nodes} if nodes > 1 else {}
        placement = wideload_eplb.plan(tokens_per_expert, slots, ranks, policy=policy, **on_nodes)
        tables = _arrays.tables(_arrays.to_numpy(placement, "placement"), tokens_per_expert.shape[2])
        return (placement, *(_arrays.like(tokens_per_expert, table) for table in tables))
    raise ValueError(
        f"eplb algorithm {algorithm} is not offered by wideload_eplb; take deepseek, elasticity_aware, even or scenario, "
        "each also with _hierarchical, or tensorrt_llm"
    )


def _groups_and_nodes(algorithm: EplbAlgorithm, num_groups: int | None, num_nodes: int) -> tuple[int, int]:
    if not algorithm.name.endswith("_hierarchical"):
        return 1, 1
    if num_groups is None or num_groups % num_nodes != 0:
        raise ValueError(f"num_groups is {num_groups}; {algorithm.name} needs a multiple of {num_nodes} (num_nodes)")
    return num_groups, num_nodes


def _active_ranks(active_ranks, ranks: int) -> np.ndarray:
    """Which of the ranks are active, bool [ranks]."""
    if active_ranks is None:
        from sglang.srt.elastic_ep import elastic_ep

        if hasattr(elastic_ep, "ElasticEPStateManager"):
            state = elastic_ep.ElasticEPStateManager.instance()
        else:
            state = elastic_ep.get_elastic_ep_state()
        active_ranks = np.ones(ranks) if state is None else state.active_ranks
    active = _arrays.to_numpy(active_ranks, "active_ranks") != 0
    if active.ndim != 1 or len(active) < ranks or active[ranks:].any() or not active.any():
        raise ValueError(
            f"active_ranks has shape {list(active.shape)} with {int(active.sum())} active; it must be "
            f"[{ranks}] (ranks) with at least one, or longer with 0 beyond"
        )
    return active[:ranks]


def _plan_active(weight, slots: int, active: np.ndarray):
    """DeepSeek's global plan on the active ranks; the slots of the others are filled with expert 0."""
    local = slots // len(active)
    new_slot = np.flatnonzero(np.repeat(active, local))  # slot among the active ranks -> slot
    maps = wideload_eplb.rebalance_experts(weight, len(new_slot), 1, 1, int(active.sum()))
    experts, table, counts = (_arrays.to_numpy(array, "map") for array in maps)
    placement = np.zeros((experts.shape[0], slots), dtype=np.int64)
    placement[:, new_slot] = experts
    table = np.where(table < 0, -1, new_slot[table])
    return tuple(_arrays.like(weight, array) for array in (placement, table, counts))
