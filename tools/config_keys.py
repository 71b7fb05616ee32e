#!/usr/bin/env python3
"""What wideload does with every key of a collection of TensorRT-LLM's configurations, as a table in Markdown.

usage: config_keys.py PROGRAM COLLECTION

COLLECTION holds YAML documents whose `worker:` is what trtllm-serve gets as --config. Each is given to
`PROGRAM config check`; all must pass. A key can have several classes, as they depend on values.
"""
import collections
import json
import pathlib
import subprocess
import sys
import tempfile


def workers(text):
    """The `worker` parts, as YAML files of their own."""
    for document in text.split("\n---\n")[1:]:
        lines = document.split("\nworker:")[1].splitlines()
        if lines[0].strip():  # on one line
            yield lines[0] + "\n"
            continue
        inner = []
        for line in lines[1:]:
            if line and not line.startswith("  "):
                break
            inner.append(line[2:])
        yield "\n".join(inner) + "\n"


def check(program, texts):
    """(exit code, stderr, the documents of `config check --json`)"""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, text in enumerate(texts):
            paths.append(pathlib.Path(folder, f"{i:04}.yaml"))
            paths[-1].write_text(text)
        done = subprocess.run([program, "config", "check", "--json", *map(str, paths)], capture_output=True, text=True)
    return done.returncode, done.stderr, json.loads(done.stdout or "[]")


def table(files):
    counts, reasons = collections.Counter(), {}
    for file in files:
        for entry in file["keys"]:
            key = (entry["key"], entry["class"])
            counts[key] += 1
            reasons[key] = f"`{entry['option']}`" if "option" in entry else entry["reason"]
    yield "# Keys of real configurations\n"
    yield f"""What `wideload config check` says of {len(files)} distinct configurations that serve models with TensorRT-LLM, {len({key for key, _ in counts})} keys
in all. Made by `tools/config_keys.py`; a test compares them. *effective*: sets an option. *no effect*: what it chooses is not there
or not chosen here. *not supported yet*: a run refuses it unless `--allow-unsupported`, and the last column says what is done
instead. A key whose class depends on its value has two lines.
"""
    yield "| key | class | count | option, or why |\n|---|---|---|---|"
    for key, kind in sorted(counts):
        yield f"| `{key}` | {kind} | {counts[key, kind]} | {reasons[key, kind]} |"


def main():
    program, collection = sys.argv[1:]
    code, errors, files = check(program, list(workers(pathlib.Path(collection).read_text())))
    if code != 0:
        sys.exit(errors)
    print("\n".join(table(files)))


if __name__ == "__main__":
    main()
