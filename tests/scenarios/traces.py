"""Routing traces made from a seed: the same file on every machine, as only integers decide."""
import itertools
import json
import pathlib
import struct

EXPERTS, TOP_K, LAYERS, TASKS, DOCUMENTS = 32, 4, 3, 4, 8


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2 ** 64 - 1)
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2 ** 64 - 1)
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2 ** 64 - 1)
        return (x ^ (x >> 31)) % n


def weights_of(random, base):
    """Some experts of `base` busier, others less, as another task or document would have it."""
    return [max(1, b * (4 + random.below(13)) // 8) for b in base]


def token(random, cumulative):
    """TOP_K different experts."""
    ids = []
    while len(ids) < TOP_K:
        at = random.below(cumulative[-1])
        expert = next(e for e, upper in enumerate(cumulative) if at < upper)
        if expert not in ids:
            ids.append(expert)
    return ids


def write(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def make_tasks(seed):
    """[task][document] -> list of tokens, each [layer][k]"""
    random = Random(seed)
    base = [[40 * 32 // (4 + e) for e in range(EXPERTS)] for _ in range(LAYERS)]
    for row in base:
        for i in range(EXPERTS - 1, 0, -1):
            j = random.below(i + 1)
            row[i], row[j] = row[j], row[i]
    tasks = []
    for _ in range(TASKS):
        of_task = [weights_of(random, weights_of(random, row)) for row in base]
        documents = []
        for _ in range(DOCUMENTS):
            cumulative = [list(itertools.accumulate(weights_of(random, row))) for row in of_task]
            documents.append([[token(random, row) for row in cumulative] for _ in range(150 + random.below(200))])
        tasks.append(documents)
    return tasks


def ids_of(documents):
    return bytes(e for document in documents for layers in document for ids in layers for e in ids)


def write_tasks(path, tasks):
    """One tensor per task."""
    tensors = {}
    for i, documents in enumerate(tasks):
        tokens = sum(map(len, documents))
        tensors[f"task{i}"] = ("U8", [tokens, LAYERS, TOP_K], ids_of(documents))
        tensors[f"task{i}_document_tokens"] = ("I64", [len(documents)],
                                               struct.pack(f"<{len(documents)}q", *map(len, documents)))
    write(path, tensors)


def write_answers(path, tasks):
    """All documents as answers, task after task."""
    documents = [document for task in tasks for document in task]
    write(path, {"expert_ids": ("U8", [sum(map(len, documents)), LAYERS, TOP_K], ids_of(documents)),
                 "answer_tokens": ("I64", [len(documents)], struct.pack(f"<{len(documents)}q", *map(len, documents)))})
