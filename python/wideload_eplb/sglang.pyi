from enum import Enum
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["EplbAlgorithm", "compute_algorithm", "rebalance_experts"]

class EplbAlgorithm(Enum):
    deepseek = 1
    deepseek_hierarchical = 2
    deepseek_vec = 3
    deepseek_vec_hierarchical = 4
    elasticity_aware = 5
    elasticity_aware_hierarchical = 6
    scenario = 7
    scenario_hierarchical = 8
    tensorrt_llm = 9
    even = 10
    even_hierarchical = 11

def compute_algorithm(raw_algorithm: str, num_groups: int | None, num_nodes: int) -> EplbAlgorithm: ...
@overload
def rebalance_experts(
    tokens_per_expert: NDArray[Any],
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: EplbAlgorithm,
    active_ranks: torch.Tensor | NDArray[Any] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
@overload
def rebalance_experts(
    tokens_per_expert: torch.Tensor,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: EplbAlgorithm,
    active_ranks: torch.Tensor | NDArray[Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...
