"""Files of other engines, made without these engines: what torch.save, numpy.save and vLLM write."""
import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile


def npy(values, shape):
    """An int64 array as numpy.save writes it."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack(f"<{len(values)}q", *values)


def flat(nested):
    return [value for item in nested for value in flat(item)] if isinstance(nested, list) else [nested]


def shape_of(nested):
    return (len(nested), *shape_of(nested[0])) if isinstance(nested, list) else ()


class Tensor:
    """Nested lists of integers that are pickled as torch pickles a tensor of int32."""

    def __init__(self, nested):
        self.values, self.shape = flat(nested), shape_of(nested)


def torch_names():
    """Stand-ins for what a pickle of torch names; never called."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    storage = type("IntStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("is not called")
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.IntStorage, torch._utils, utils._rebuild_tensor_v2 = storage, utils, _rebuild_tensor_v2
    return torch, utils


class TorchPickler(pickle.Pickler):
    def __init__(self, file, torch, utils):
        super().__init__(file, protocol=2)
        self.torch, self.utils, self.storages = torch, utils, []

    def persistent_id(self, value):
        if not isinstance(value, self.torch.IntStorage):
            return None
        return "storage", self.torch.IntStorage, value.key, "cuda:0", value.elements

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        storage = self.torch.IntStorage()
        storage.key, storage.elements = str(len(self.storages)), len(value.values)
        self.storages.append(struct.pack(f"<{len(value.values)}i", *value.values))
        strides, step = [], 1
        for extent in reversed(value.shape):
            strides.insert(0, step)
            step *= extent
        return self.utils._rebuild_tensor_v2, (storage, 0, value.shape, tuple(strides), False, collections.OrderedDict())


def torch_file(value):
    """The bytes of torch.save(value); lists wrapped in Tensor become tensors."""
    torch, utils = torch_names()
    held = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        pickled = io.BytesIO()
        pickler = TorchPickler(pickled, torch, utils)
        pickler.dump(value)
    finally:
        for name, module in held.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("dump/data.pkl", pickled.getvalue())
        file.writestr("dump/byteorder", "little")
        for key, data in enumerate(pickler.storages):
            file.writestr(f"dump/data/{key}", data)
        file.writestr("dump/version", "3\n")
    return archive.getvalue()


def safetensors(tensors):
    """The bytes of a file of int64 tensors: {name: (shape, values)}."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}q", *values)
        header[name] = {"dtype": "I64", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def vllm_stats(steps, placement, num_ranks):
    """eplb_load_stats of counts per slot: steps [steps][layers][slots]."""
    return "".join(json.dumps({"record_type": "eplb_load_stats", "version": 1, "step": 100 * i, "num_ranks": num_ranks,
                               "expert_load": step, "p2l_map": placement}) + "\n" for i, step in enumerate(steps))
