"""Arguments in, results out: numpy arrays, torch tensors and whatever numpy can read, checked by name."""

from __future__ import annotations

import operator
import os
import sys
from typing import Any

import numpy as np

_MAX_INT32 = 2**31 - 1
_MAX_LOAD = 1e30  # any number of experts of it adds up in single precision
_WORTH_A_THREAD_US = 5_000  # starting a pool and waking its threads takes 0.1 ms to 10 ms on a busy machine


def is_tensor(value: Any) -> bool:
    """Whether value is a torch tensor. Never imports torch: who holds a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any, name: str) -> np.ndarray:
    """The numbers of value as a numpy array on the host; TypeError for anything but integers and floats."""
    if is_tensor(value):
        value = value.detach().cpu()
        if value.is_floating_point() and value.element_size() < 4:
            value = value.float()  # numpy has no bfloat16
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; it must hold integers or floating-point numbers")
    return array


def like(template: Any, array: np.ndarray) -> Any:
    """array as what template is: a torch tensor (on the CPU) or a numpy array."""
    return sys.modules["torch"].from_numpy(array) if is_tensor(template) else array


def size(value: Any, name: str, least: int = 1) -> int:
    """An integer argument in [least, 2^31)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None
    if not least <= number <= _MAX_INT32:
        raise ValueError(f"{name} is {number}; allowed: {least} to {_MAX_INT32}")
    return number


def price(value: Any, name: str) -> float:
    """A finite number, 0 or more."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be a number") from None
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"{name} is {number}; allowed: 0 or more, finite")
    return number


def seed(value: Any) -> int:
    number = operator.index(value)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed is {number}; allowed: 0 to 2^64 - 1")
    return number


def threads(num_threads: int | None, work_us: float) -> int:
    """num_threads, or as many as this process may use and `work_us`, roughly estimated, is worth."""
    if num_threads is not None:
        return size(num_threads, "num_threads")
    return max(1, min(len(os.sched_getaffinity(0)), int(work_us / _WORTH_A_THREAD_US)))


def _expect_dimensions(array: np.ndarray, name: str, shapes: dict[int, str]) -> None:
    if array.ndim not in shapes or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {list(array.shape)}; it must be {' or '.join(shapes.values())}, none of them 0"
        )


def _expect_loads(array: np.ndarray, name: str) -> None:
    bad = ~(array <= _MAX_LOAD) | (array < 0)  # also what is no number
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(at)} is {array[at]}; loads must be finite, from 0 to {_MAX_LOAD}")


def table(value: Any, name: str, dtype: type) -> np.ndarray:
    """Loads [layers, experts]."""
    array = to_numpy(value, name)
    _expect_dimensions(array, name, {2: "[layers, experts]"})
    _expect_loads(array, name)
    return np.ascontiguousarray(array, dtype=dtype)


def batches(value: Any, name: str, whole: bool = False) -> tuple[np.ndarray, bool]:
    """(loads [iterations, layers, experts], whether value had iterations); int64 if whole, else float64."""
    array = to_numpy(value, name)
    _expect_dimensions(array, name, {2: "[layers, experts]", 3: "[iterations, layers, experts]"})
    _expect_loads(array, name)
    if whole:
        expect_counts(array, name)
    has_iterations = array.ndim == 3
    array = array if has_iterations else array[None]
    return np.ascontiguousarray(array, dtype=np.int64 if whole else np.float64), has_iterations


def expect_counts(array: np.ndarray, name: str) -> None:
    """Refuses what is no count of tokens: fractions and numbers above 2^31 - 1."""
    bad = array > _MAX_INT32
    if array.dtype.kind == "f":
        bad |= array != np.floor(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(at)} is {array[at]}; counts must be whole numbers up to {_MAX_INT32}")


def placement(value: Any, num_layers: int, name: str = "placement") -> np.ndarray:
    """Experts in slots, int32 [layers, slots]; a row [slots] stands for every layer."""
    array = to_numpy(value, name)
    if array.dtype.kind == "f":
        raise TypeError(f"{name} has dtype {array.dtype}; it must hold integers")
    _expect_dimensions(array, name, {1: "[slots]", 2: "[layers, slots]"})
    if array.ndim == 1:
        array = np.broadcast_to(array, (num_layers, array.shape[0]))
    if array.shape[0] != num_layers:
        raise ValueError(f"{name} has {array.shape[0]} layers; the loads have {num_layers}")
    bad = (array < 0) | (array > _MAX_INT32)
    if bad.any():
        layer, slot = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}[{layer}, {slot}] is {array[layer, slot]}; it must be an expert's number")
    return np.ascontiguousarray(array, dtype=np.int32)


def speeds(rank_speed: Any, num_ranks: int) -> np.ndarray:
    """Relative speeds of ranks, float64 [num_ranks]; None: all 1."""
    speed = np.ones(num_ranks) if rank_speed is None else to_numpy(rank_speed, "rank_speed")
    if speed.shape != (num_ranks,):
        raise ValueError(f"rank_speed has shape {list(speed.shape)}; it must be [{num_ranks}] (num_ranks)")
    if not np.isfinite(speed).all() or (speed < 0).any():
        raise ValueError(f"rank_speed is {speed.tolist()}; speeds must be finite and 0 or more")
    return np.ascontiguousarray(speed, dtype=np.float64)


def tables(placement: np.ndarray, num_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(logical_to_physical_map, expert_count) of a placement; an expert's slots ascend."""
    layers, slots = placement.shape
    rows = np.arange(layers)[:, None]
    counts = np.zeros((layers, num_experts), dtype=np.int64)
    np.add.at(counts, (rows, placement), 1)
    order = np.argsort(placement, axis=1, kind="stable")
    experts = np.take_along_axis(placement, order, axis=1)
    firsts = np.cumsum(counts, axis=1) - counts
    table = np.full((layers, num_experts, counts.max()), -1, dtype=np.int64)
    table[rows, experts, np.arange(slots) - np.take_along_axis(firsts, experts, axis=1)] = order
    return table, counts
