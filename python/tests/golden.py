"""Inputs and expected results the tests share: the repository's golden plans and, where present, the shared data."""

import json
import os
import pathlib
import struct
import unittest

import numpy as np

SOURCE = pathlib.Path(os.environ.get("WIDELOAD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
_DTYPES = {"I64": np.int64, "F32": np.float32, "I32": np.int32, "U8": np.uint8, "U16": np.uint16, "F64": np.float64}


def plans():
    """Plans of DeepSeek's policy by a second implementation (tools/deepseek_golden.py), loads without ties."""
    return json.loads((SOURCE / "testdata/eplb/deepseek_golden.json").read_text())


def read_shared(name):
    """tensor name -> array of a shared safetensors file; skips the test where it is absent."""
    path = pathlib.Path(os.environ.get("WIDELOAD_SHARED", SOURCE / "../shared")) / "data" / name
    if not path.exists():
        raise unittest.SkipTest(f"{path.name} is not there; set WIDELOAD_SHARED")
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for key, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[key] = np.frombuffer(content[begin:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def skewed_loads(seed, shape):
    """Whole numbers, log-normal: a few experts get most."""
    return np.random.default_rng(seed).lognormal(6, 1, shape).astype(np.int64) + 1


def trace(seed, tokens, layers, experts, k):
    """Ids [tokens, layers, k], distinct per token, low ids more often."""
    random = np.random.default_rng(seed)
    keys = random.random((tokens, layers, experts)) ** (1 + np.arange(experts) / 4)
    return np.argsort(-keys, axis=2)[:, :, :k].astype(np.uint16)
