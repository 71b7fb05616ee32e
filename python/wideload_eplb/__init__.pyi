from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Union, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__version__: str
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

Array = Union[NDArray[Any], Sequence[Any]]
Split = Literal["even", "optimal", "optimal_fractional"]
SimulatedSplit = Literal["even", "round_robin", "optimal", "optimal_fractional"]

class SimulatedRun(TypedDict):
    policy: str
    split: str
    imbalance: NDArray[np.float64]
    imbalance_mean: float
    imbalance_p99: float
    slots_fetched_per_layer: float

class Simulation(TypedDict):
    results: list[SimulatedRun]
    clairvoyant: float

class Repair(NamedTuple):
    placement: NDArray[np.int64]
    fetched_slots: NDArray[np.int64]
    imbalance_before: NDArray[np.float64]
    imbalance_after: NDArray[np.float64]

class RepairOfTensors(NamedTuple):
    placement: torch.Tensor
    fetched_slots: torch.Tensor
    imbalance_before: torch.Tensor
    imbalance_after: torch.Tensor

class Bounds(NamedTuple):
    replica_capacity: NDArray[np.float64]
    sampling_floor: NDArray[np.float64]
    components: NDArray[np.float64]

def policies() -> dict[str, str]: ...
def has_property(policy: str, name: str) -> bool: ...
@overload
def rebalance_experts(
    weight: Array,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    num_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
@overload
def rebalance_experts(
    weight: torch.Tensor,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    num_threads: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...
@overload
def plan(
    loads: Array,
    num_slots: int,
    num_ranks: int,
    *,
    policy: str = "scenario",
    num_groups: int = 1,
    num_nodes: int = 1,
    cross_node_slots: int | None = None,
    current: ArrayLike | torch.Tensor | None = None,
    fetch_price: float = 0.0,
    seed: int = 1,
    num_threads: int | None = None,
) -> NDArray[np.int64]: ...
@overload
def plan(
    loads: torch.Tensor,
    num_slots: int,
    num_ranks: int,
    *,
    policy: str = "scenario",
    num_groups: int = 1,
    num_nodes: int = 1,
    cross_node_slots: int | None = None,
    current: ArrayLike | torch.Tensor | None = None,
    fetch_price: float = 0.0,
    seed: int = 1,
    num_threads: int | None = None,
) -> torch.Tensor: ...
@overload
def split(
    counts: Array,
    placement: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    fractional: bool = False,
    rank_speed: ArrayLike | torch.Tensor | None = None,
    tokens_per_active_slot: float = 0.0,
    num_threads: int | None = None,
) -> NDArray[np.int64] | NDArray[np.float64]: ...
@overload
def split(
    counts: torch.Tensor,
    placement: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    fractional: bool = False,
    rank_speed: ArrayLike | torch.Tensor | None = None,
    tokens_per_active_slot: float = 0.0,
    num_threads: int | None = None,
) -> torch.Tensor: ...
@overload
def imbalance(
    loads: Array,
    placement: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    split: Split = "even",
    num_threads: int | None = None,
) -> NDArray[np.float64]: ...
@overload
def imbalance(
    loads: torch.Tensor,
    placement: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    split: Split = "even",
    num_threads: int | None = None,
) -> torch.Tensor: ...
@overload
def repair(
    placement: Array,
    loads: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    max_fetched_slots: int = 2,
    split: Literal["even", "optimal"] = "optimal",
    until: float = 0.0,
    min_gain: float = 1e-4,
    decay: float = 1.0,
    rank_speed: ArrayLike | torch.Tensor | None = None,
    num_groups: int = 1,
    num_nodes: int = 1,
    cross_node_slots: int | None = None,
    seed: int = 1,
    num_threads: int | None = None,
) -> Repair: ...
@overload
def repair(
    placement: torch.Tensor,
    loads: ArrayLike | torch.Tensor,
    num_ranks: int,
    *,
    max_fetched_slots: int = 2,
    split: Literal["even", "optimal"] = "optimal",
    until: float = 0.0,
    min_gain: float = 1e-4,
    decay: float = 1.0,
    rank_speed: ArrayLike | torch.Tensor | None = None,
    num_groups: int = 1,
    num_nodes: int = 1,
    cross_node_slots: int | None = None,
    seed: int = 1,
    num_threads: int | None = None,
) -> RepairOfTensors: ...
def bounds(
    loads: ArrayLike | torch.Tensor, num_slots: int, num_ranks: int, *, num_threads: int | None = None
) -> Bounds: ...
def simulate(
    expert_ids: ArrayLike | torch.Tensor | Mapping[str, ArrayLike | torch.Tensor],
    num_slots: int,
    num_ranks: int,
    *,
    policies: Sequence[str] | None = None,
    splits: Sequence[SimulatedSplit] = ("even", "optimal"),
    document_tokens: ArrayLike | Mapping[str, ArrayLike] | None = None,
    num_experts: int | None = None,
    tokens_per_iteration: int | None = None,
    decode: tuple[int, int] | None = None,
    answer_stride: int = 1,
    record: Literal["half", "half_per_task", "alternate_answers"] = "half",
    seed: int = 1,
    num_threads: int | None = None,
) -> Simulation: ...
