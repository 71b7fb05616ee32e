from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["DefaultEplbPolicy", "ThreeMapsEplbPolicy", "WideloadEplbPolicy", "register"]

def register() -> None: ...

class WideloadEplbPolicy:
    policy: str
    max_fetched_slots: int | None
    cross_node_slots: int | None
    @overload
    @classmethod
    def rebalance_experts(
        cls,
        weight: NDArray[Any],
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: NDArray[Any] | None = None,
    ) -> NDArray[np.int64]: ...
    @overload
    @classmethod
    def rebalance_experts(
        cls,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> torch.Tensor: ...

class ThreeMapsEplbPolicy:
    policy: str
    max_fetched_slots: int | None
    cross_node_slots: int | None
    @overload
    @classmethod
    def rebalance_experts(
        cls,
        weight: NDArray[Any],
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
    @overload
    @classmethod
    def rebalance_experts(
        cls,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

DefaultEplbPolicy = WideloadEplbPolicy
