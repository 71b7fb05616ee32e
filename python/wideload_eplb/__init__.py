"""Expert-parallel load balancing: where experts live, how tokens split over replicas, what that brings.

A *placement* says which expert each slot holds: integers [layers, slots]; rank r owns the slots
[r * slots / ranks, (r + 1) * slots / ranks) of every layer. *Loads* are tokens routed to each expert:
[layers, experts], or [iterations, layers, experts] where single batches were recorded. The *imbalance ratio* is
(max - mean) / mean of tokens per rank; 0 is perfect.

Arguments may be numpy arrays, torch tensors (any device, any real dtype) or nested lists. Results are torch tensors on
the CPU where the first argument was a tensor, else numpy arrays. torch is never imported from here.

Layers are spread over `num_threads` threads (None: those of this process's cores that the work keeps busy); results do
not depend on their number. The interpreter's lock is released meanwhile.

Errors: TypeError for a wrong kind of argument, ValueError for what is refused (the message names the argument, what was
found and what is allowed), RuntimeError for a run that failed.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from . import _arrays, _core

__version__ = "0.1.0"
__all__ = [
    "Bounds",
    "Repair",
    "bounds",
    "has_property",
    "imbalance",
    "plan",
    "policies",
    "rebalance_experts",
    "repair",
    "simulate",
    "split",
]


def policies() -> dict[str, str]:
    """The balancing policies that `plan` and `simulate` know: name -> one line on what it does."""
    return {name: summary for name, summary, _ in _core.policies()}


def _with(ability: str) -> list[str]:
    """The policies that have a property of eplb's table: looks_at_nodes, weighs_fetches, .."""
    return [name for name, _, abilities in _core.policies() if ability in abilities]


def has_property(policy: str, name: str) -> bool:
    """Whether a policy looks_at_nodes, bounds_cross_slots, weighs_fetches, searches or is_compared (by default)."""
    return policy in _with(name)


def _names(ability: str) -> str:
    return " or ".join(f'"{name}"' for name in _with(ability))


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus, *, num_threads=None):
    """DeepSeek's balancer: same arguments, same results as `rebalance_experts` of deepseek-ai/EPLB.

    Hierarchical over nodes when num_groups is a multiple of num_nodes, else global. Identical to the published
    function where no loads tie; at ties the lowest index is taken (the published one leaves them to torch's sort),
    which gives equally loaded ranks. Replicas of one expert always tie: the order of an expert's slots in
    logical_to_physical_map is that in which its replicas were made.

    weight: [layers, experts] loads, any real dtype; taken to float32 as the published function does.
    num_replicas: slots per layer; at least experts and a multiple of num_gpus.
    num_groups: expert groups of the router, num_nodes: nodes, num_gpus: ranks, a multiple of num_nodes.

    Returns int64 (physical_to_logical_map [layers, num_replicas], logical_to_physical_map [layers, experts, X] padded
    with -1, expert_count [layers, experts]); X is the largest number of replicas.
    Errors: ValueError for negative or non-finite loads and sizes that do not divide.
    """
    loads = _arrays.table(weight, "weight", np.float32)
    sizes = [
        _arrays.size(num_replicas, "num_replicas"),
        _arrays.size(num_groups, "num_groups"),
        _arrays.size(num_nodes, "num_nodes"),
        _arrays.size(num_gpus, "num_gpus"),
    ]
    maps = _core.rebalance_experts(loads, sizes, _arrays.threads(num_threads, loads.size * 0.15))
    return tuple(_arrays.like(weight, array) for array in maps)


def plan(
    loads,
    num_slots,
    num_ranks,
    *,
    policy="scenario",
    num_groups=1,
    num_nodes=1,
    cross_node_slots=None,
    current=None,
    fetch_price=0.0,
    seed=1,
    num_threads=None,
):
    """Placements by one of `policies()`.

    loads: [layers, experts], or [iterations, layers, experts]: recorded batches, which "even" and "scenario" plan for one
    by one and the others add up.
    num_slots: slots per layer over all ranks; at least experts and a multiple of num_ranks.
    policy: "scenario" makes placements for engines that split every batch optimally (see `split`). For engines that
    deal out an expert's tokens evenly or in turn (TensorRT-LLM, vLLM, SGLang) take "even"; it needs a dozen recorded
    batches to be much better than "deepseek" and "tensorrt_llm", which plan from sums.
    num_groups, num_nodes: experts of a group stay on one node; for "deepseek", as in `rebalance_experts`, "even" and
    "scenario"; refused with other policies.
    cross_node_slots: slots of a layer that may hold an expert of another node (None: as many as nodes); for "even" and
    "scenario" on several nodes only.
    current: what the slots hold now, [layers, num_slots] or [num_slots]: ranks are renamed, within their node, so that as
    many slots as possible hold what they held, and experts that stay on a rank keep their slot. The balance stays the same.
    fetch_price: about what one slot whose rank must fetch its expert has to gain in mean imbalance; 0 or more, above 0 for
    "even" and "scenario" with `current` only. The search then starts from `current`, too, and changes what is worth it.
    seed: 0 to 2^64 - 1; for "even" and "scenario", which draw random numbers.

    Returns int64 [layers, num_slots]. A layer without load is planned as if all loads were equal.
    Errors: ValueError for an unknown policy, sizes that do not divide, negative or non-finite loads,
    a fetch_price that is negative, not finite or has nothing to weigh.
    """
    array, _ = _arrays.batches(loads, "loads")
    num_groups, num_nodes = _arrays.size(num_groups, "num_groups"), _arrays.size(num_nodes, "num_nodes")
    if policy in policies() and policy not in _with("looks_at_nodes") and (num_groups, num_nodes) != (1, 1):
        raise ValueError(
            f'num_groups is {num_groups} and num_nodes {num_nodes}; policy "{policy}" plans for 1 and 1 '
            f"only, {_names('looks_at_nodes')} for several"
        )
    if cross_node_slots is not None and (policy not in _with("bounds_cross_slots") or num_nodes == 1):
        raise ValueError(
            f'cross_node_slots is {cross_node_slots} with policy "{policy}" and num_nodes {num_nodes}; allowed: None, '
            f"or {_names('bounds_cross_slots')} on several nodes"
        )
    price = _arrays.price(fetch_price, "fetch_price")
    if price > 0 and (policy not in _with("weighs_fetches") or current is None):
        raise ValueError(
            f'fetch_price is {fetch_price} with policy "{policy}" and {"no " if current is None else ""}current; allowed: 0, '
            f"or {_names('weighs_fetches')} with current"
        )
    cross_slots = -1 if cross_node_slots is None else _arrays.size(cross_node_slots, "cross_node_slots", 0)
    sizes = [
        _arrays.size(num_slots, "num_slots"),
        num_groups,
        num_nodes,
        _arrays.size(num_ranks, "num_ranks"),
        cross_slots,
    ]
    held = np.zeros((array.shape[1], 0), dtype=np.int32)
    if current is not None:
        held = _arrays.placement(current, array.shape[1], "current")
        if held.shape[1] != sizes[0]:
            raise ValueError(f"current has {held.shape[1]} slots; it must have {sizes[0]} (num_slots)")
    work_us = array[0].size * (150 if policy in _with("searches") else 0.15)
    slots = _core.plan(array, sizes, str(policy), _arrays.seed(seed), (held, price), _arrays.threads(num_threads, work_us))
    return _arrays.like(loads, slots)


def split(
    counts, placement, num_ranks, *, fractional=False, rank_speed=None, tokens_per_active_slot=0.0, num_threads=None
):
    """The optimal split: how many tokens of each expert every slot gets so that the busiest rank gets the least.

    counts: tokens per expert of one batch [layers, experts], or of several [iterations, layers, experts]; whole numbers
    up to 2^31 - 1, any non-negative number with fractional=True.
    placement: [layers, slots], or [slots] for all layers.

    Whole tokens (default): int64 quotas that add up to counts; the busiest rank gets the fractional optimum rounded up.
    fractional=True: float64 shares. Only then also: rank_speed [ranks], each >= 0 (0: a dead rank, which gets nothing),
    and tokens_per_active_slot >= 0, the fixed cost of a slot that gets tokens; what is balanced is (tokens +
    tokens_per_active_slot * active slots) / rank_speed. With a slot cost the result is a local optimum.

    Returns [layers, slots], or [iterations, layers, slots]. A second slot of one expert on the same rank gets nothing.
    Errors: ValueError for an expert without a slot, or with tokens and no slot on a rank that is alive, ids out of range,
    slots that are no multiple of num_ranks, costs without fractional=True.
    """
    array, has_iterations = _arrays.batches(counts, "counts", whole=not fractional)
    slots = _arrays.placement(placement, array.shape[1])
    num_ranks = _arrays.size(num_ranks, "num_ranks")
    threads = _arrays.threads(num_threads, array.size * 0.1)
    if fractional:
        speed = _arrays.speeds(rank_speed, num_ranks)
        result = _core.split_fractional(array, slots, speed, float(tokens_per_active_slot), threads)
    elif rank_speed is not None or tokens_per_active_slot != 0:
        raise ValueError("rank_speed and tokens_per_active_slot need fractional=True")
    else:
        result = _core.split_whole(array, slots, num_ranks, threads)
    return _arrays.like(counts, result if has_iterations else result[0])


def imbalance(loads, placement, num_ranks, *, split="even", num_threads=None):
    """The imbalance ratio (max - mean) / mean of tokens per rank that a placement gives.

    loads: [layers, experts] or [iterations, layers, experts] tokens. placement: [layers, slots] or [slots].
    split: "even" (every slot of an expert gets the same share), "optimal" (as `split`; loads must be whole numbers) or
    "optimal_fractional".

    Returns float64 [layers] or [iterations, layers]; 0 where there are no tokens.
    Errors: as `split`.
    """
    array, has_iterations = _arrays.batches(loads, "loads")
    if split == "optimal":
        _arrays.expect_counts(array, "loads")
    slots = _arrays.placement(placement, array.shape[1])
    ratios = _core.imbalance(
        array, slots, _arrays.size(num_ranks, "num_ranks"), str(split), _arrays.threads(num_threads, array.size * 0.1)
    )
    return _arrays.like(loads, ratios if has_iterations else ratios[0])


class Repair(NamedTuple):
    """What `repair` returns."""

    placement: Any  # int64 [layers, slots]
    fetched_slots: Any  # int64 [layers]: slots whose expert their rank did not hold
    imbalance_before: Any  # float64 [layers]: weighted mean over batches, under the split that was balanced for
    imbalance_after: Any  # float64 [layers]


def repair(
    placement,
    loads,
    num_ranks,
    *,
    max_fetched_slots=2,
    split="optimal",
    until=0.0,
    min_gain=1e-4,
    decay=1.0,
    rank_speed=None,
    num_groups=1,
    num_nodes=1,
    cross_node_slots=None,
    seed=1,
    num_threads=None,
):
    """Changes a placement as little as it takes: the best gain per fetched slot first, within a budget.

    placement: [layers, slots] (or [slots] for all layers), what the ranks hold now.
    loads: [layers, experts], or the recorded batches [iterations, layers, experts], oldest first.
    max_fetched_slots: budget per layer. Covering experts that have no live slot is not bound by it.
    split: what to balance for: "optimal", or "even" for engines that deal out an expert's tokens evenly (vLLM, SGLang,
    TensorRT-LLM). until: stops at this mean imbalance under that split. min_gain: what a fetched slot must save of it.
    decay: weight of a batch relative to the next younger one, in (0, 1].
    rank_speed: [ranks], each >= 0; 0 is a dead rank, whose slots keep what they hold and count for nothing.
    num_groups, num_nodes: on several nodes an expert that has a slot on its home node keeps one there. The home of a
    group (1: of an expert) is the node that holds most of its experts now, of several that with most slots of them.
    cross_node_slots: slots of a layer that may hold an expert of another node; a placement that has more is refused.
    None: as many as nodes, or as many as the placement has if these are more.

    Returns a Repair; experts that stay on a rank keep their slot. Covering experts comes before nodes.
    Errors: ValueError for a placement that does not fit and options out of range, RuntimeError when fewer slots are
    alive than there are experts.
    """
    array, _ = _arrays.batches(loads, "loads")
    slots = _arrays.placement(placement, array.shape[1])
    num_ranks = _arrays.size(num_ranks, "num_ranks")
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; allowed: above 0, up to 1")
    for name, value in (("until", until), ("min_gain", min_gain)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; it must be finite and 0 or more")
    options = _core.RepairOptions()
    options.max_fetched_slots = _arrays.size(max_fetched_slots, "max_fetched_slots", least=0)
    if split not in ("even", "optimal"):
        raise ValueError(f'split is "{split}"; allowed: even, optimal')
    options.splits_evenly = split == "even"
    options.until, options.min_gain, options.seed = float(until), float(min_gain), _arrays.seed(seed)
    options.rank_speed = _arrays.speeds(rank_speed, num_ranks).tolist()
    options.nodes = (_arrays.size(num_nodes, "num_nodes"), _arrays.size(num_groups, "num_groups"))
    if cross_node_slots is not None:
        if num_nodes == 1:
            raise ValueError(f"cross_node_slots is {cross_node_slots} with num_nodes 1; allowed: None, or several nodes")
        options.max_cross_slots = _arrays.size(cross_node_slots, "cross_node_slots", 0)
    weights = float(decay) ** np.arange(array.shape[0] - 1, -1, -1, dtype=np.float64)
    results = _core.repair(
        slots, array, np.maximum(weights, 1e-9), options, _arrays.threads(num_threads, array[0].size * 10)
    )
    return Repair(*(_arrays.like(placement, result) for result in results))


class Bounds(NamedTuple):
    """What `bounds` returns: imbalance ratios."""

    replica_capacity: np.ndarray  # float64, loads' shape without experts: no placement and no split of it is below
    sampling_floor: np.ndarray  # the same shape; estimate: the best fixed split, from the chance of sampling alone
    components: np.ndarray  # float64 [layers]; estimate: any placement under the optimal split, from loads that vary


def bounds(loads, num_slots, num_ranks, *, num_threads=None):
    """What no placement of these sizes can go below.

    loads: tokens [layers, experts], or recorded batches [iterations, layers, experts]; `components` needs several, as
    it comes from how they differ.

    Returns Bounds, numpy arrays; 0 where there is no load.
    Errors: ValueError for sizes that do not divide and bad loads.
    """
    array, has_iterations = _arrays.batches(loads, "loads")
    capacity, floor, components = _core.bounds(
        array,
        _arrays.size(num_slots, "num_slots"),
        _arrays.size(num_ranks, "num_ranks"),
        _arrays.threads(num_threads, array.size),
    )
    return Bounds(*((capacity, floor) if has_iterations else (capacity[0], floor[0])), components)


def _expert_ids(value: Any, name: str) -> np.ndarray:
    ids = _arrays.to_numpy(value, name)
    if ids.dtype.kind == "f" or ids.ndim != 3 or 0 in ids.shape:
        raise ValueError(
            f"{name} is {ids.dtype} {list(ids.shape)}; it must be integers [tokens, layers, k], none of them 0"
        )
    if ids.min() < 0 or ids.max() > 65535:
        raise ValueError(f"{name} holds ids from {ids.min()} to {ids.max()}; allowed: 0 to 65535")
    return np.ascontiguousarray(ids, dtype=np.uint16)


def _add_tasks(request: _core.SimulateRequest, expert_ids: Any, document_tokens: Any) -> int:
    """Adds the trace's tasks; returns 1 + the largest id."""
    if not isinstance(expert_ids, Mapping):
        expert_ids = {"": expert_ids}
        document_tokens = None if document_tokens is None else {"": document_tokens}
    if document_tokens is not None and set(document_tokens) != set(expert_ids):
        raise ValueError(f"document_tokens has tasks {sorted(document_tokens)}, expert_ids {sorted(expert_ids)}")
    shape = None
    most = 0
    for task, value in expert_ids.items():
        name = f"expert_ids[{task!r}]" if task else "expert_ids"
        ids = _expert_ids(value, name)
        shape = shape or ids.shape[1:]
        if ids.shape[1:] != shape:
            raise ValueError(f"{name} has shape {list(ids.shape)}; the first task has {list(shape)} layers and k")
        documents = [ids.shape[0]]
        if document_tokens is not None:
            documents = [int(n) for n in _arrays.to_numpy(document_tokens[task], "document_tokens").reshape(-1)]
        if min(documents, default=0) < 1 or sum(documents) != ids.shape[0]:
            raise ValueError(
                f"document_tokens of {name} are {len(documents)} numbers with the sum {sum(documents)}; "
                f"they must be positive and add up to its {ids.shape[0]} tokens"
            )
        request.add_task(ids, documents)
        most = max(most, int(ids.max()) + 1)
    return most


def simulate(
    expert_ids,
    num_slots,
    num_ranks,
    *,
    policies: Sequence[str] | None = None,
    splits: Sequence[str] = ("even", "optimal"),
    document_tokens=None,
    num_experts=None,
    tokens_per_iteration=None,
    decode=None,
    answer_stride=1,
    record="half",
    seed=1,
    num_threads=None,
):
    """Replays recorded routing: plans from its first part, measures on the rest. What `wideload eplb simulate` does.

    expert_ids: the trace, ids [tokens, layers, k] (0 to 65535), or a dict task -> such an array.
    document_tokens: tokens of each document (answer) of the trace, in order; for a dict a dict. None: one document.
    num_experts: None takes 1 + the largest id.
    Iterations are tokens_per_iteration tokens each (None: 4096), or, with decode=(step, length), token 0, step,
    2 * step .. below length of every document of at least `length` tokens. An incomplete last one is dropped.
    answer_stride: documents of a task are taken in the order i * answer_stride modulo their number.
    record: what placements are planned from: "half" (the first floor(n / 2) iterations), "half_per_task", or
    "alternate_answers" (documents 0, 2, 4 .. of the order). The other iterations are measured.
    policies: names of `policies()` (None: the usual ones to compare). splits: "even", "round_robin", "optimal" and "optimal_fractional".

    Returns {"results": one dict per policy and split, policies outermost: "policy", "split", "imbalance" float64
    [layers, iterations], "imbalance_mean", "imbalance_p99" (nearest rank, over layers and iterations),
    "slots_fetched_per_layer" (after the first placement, per iteration); "clairvoyant": mean imbalance of
    TensorRT-LLM's policy planned anew from each iteration's own counts with an even split}. Always numpy.
    Errors: ValueError for ids, documents, iterations and names that are not allowed.
    """
    request = _core.SimulateRequest()
    most = _add_tasks(request, expert_ids, document_tokens)
    request.num_experts = most if num_experts is None else _arrays.size(num_experts, "num_experts")
    if request.num_experts < most:
        raise ValueError(f"num_experts is {request.num_experts}; expert_ids go up to {most - 1}")
    request.num_slots, request.num_ranks = _arrays.size(num_slots, "num_slots"), _arrays.size(num_ranks, "num_ranks")
    policies = _with("is_compared") if policies is None else policies
    for name, names in (("policies", policies), ("splits", splits)):
        if isinstance(names, str) or not names:
            raise ValueError(f"{name} is {names!r}; it must be a list of one or more names")
    request.policies, request.splits = list(policies), list(splits)
    if decode is None:
        request.use_tokens(
            4096 if tokens_per_iteration is None else _arrays.size(tokens_per_iteration, "tokens_per_iteration")
        )
    elif tokens_per_iteration is not None:
        raise ValueError("tokens_per_iteration and decode exclude each other")
    else:
        try:
            step, length = decode
        except (TypeError, ValueError):
            raise ValueError(f"decode is {decode!r}; it must be (step, length)") from None
        request.use_decode(_arrays.size(step, "decode step"), _arrays.size(length, "decode length"))
    request.answer_stride = _arrays.size(answer_stride, "answer_stride")
    request.set_record(record)
    request.seed = _arrays.seed(seed)
    request.num_threads = _arrays.threads(num_threads, 1e9)
    rows, clairvoyant = _core.simulate(request)
    results = [
        {
            "policy": policy,
            "split": name,
            "imbalance": ratios,
            "imbalance_mean": float(ratios.mean()),
            "imbalance_p99": float(np.percentile(ratios, 99, method="inverted_cdf")),
            "slots_fetched_per_layer": float(np.mean(fetched)),
        }
        for policy, name, ratios, fetched in rows
    ]
    return {"results": results, "clairvoyant": float(clairvoyant.mean())}
