# The extension module: what wideload_eplb/__init__.py calls with checked arguments. Private.
import numpy as np
from numpy.typing import NDArray

def policies() -> list[tuple[str, str, list[str]]]: ...
def rebalance_experts(
    weight: NDArray[np.float32], sizes: list[int], num_threads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
def plan(
    loads: NDArray[np.float64],
    sizes: list[int],
    policy: str,
    seed: int,
    held: tuple[NDArray[np.int32], float],  # what the slots hold now, the price of a fetch
    num_threads: int,
) -> NDArray[np.int64]: ...
def split_whole(
    counts: NDArray[np.int64], placement: NDArray[np.int32], num_ranks: int, num_threads: int
) -> NDArray[np.int64]: ...
def split_fractional(
    loads: NDArray[np.float64],
    placement: NDArray[np.int32],
    rank_speed: NDArray[np.float64],
    tokens_per_active_slot: float,
    num_threads: int,
) -> NDArray[np.float64]: ...
def imbalance(
    loads: NDArray[np.float64], placement: NDArray[np.int32], num_ranks: int, split: str, num_threads: int
) -> NDArray[np.float64]: ...

class SimulateRequest:
    num_slots: int
    num_ranks: int
    policies: list[str]
    splits: list[str]
    seed: int
    num_threads: int
    num_experts: int
    answer_stride: int
    def __init__(self) -> None: ...
    def add_task(self, expert_ids: NDArray[np.uint16], document_tokens: list[int]) -> None: ...
    def set_record(self, name: str) -> None: ...
    def use_tokens(self, tokens: int) -> None: ...
    def use_decode(self, step: int, length: int) -> None: ...

def simulate(
    request: SimulateRequest,
) -> tuple[list[tuple[str, str, NDArray[np.float64], list[float]]], NDArray[np.float64]]: ...

class RepairOptions:
    max_fetched_slots: int
    splits_evenly: bool
    until: float
    min_gain: float
    rank_speed: list[float]
    seed: int
    max_cross_slots: int
    nodes: tuple[int, int]  # nodes, groups
    def __init__(self) -> None: ...

def repair(
    placement: NDArray[np.int32],
    loads: NDArray[np.float64],
    weights: NDArray[np.float64],
    options: RepairOptions,
    num_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...
def bounds(
    loads: NDArray[np.float64], num_slots: int, num_ranks: int, num_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
