#!/usr/bin/env python3
"""Runs clang-tidy over the sources changed since a base, and with --all over the others after them.

usage: tidy.py --build DIR [--base REV] [--all] [--minutes N]

A changed header counts as a change of the .cc files of its folder that are named like it (x.h: x.cc, x_test.cc). Without
--base: the merge base with origin/main, or the first parent when that is HEAD itself. Stops starting files when the
minutes are over and names how many were not looked at. Exit code 1 if clang-tidy found something.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

CLANG_TIDY = "clang-tidy-19"
SECONDS_PER_FILE = 300


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def default_base():
    head, base = git("rev-parse", "HEAD"), git("merge-base", "HEAD", "origin/main")
    return base if base and base != head else git("rev-parse", "--verify", "-q", "HEAD~1")


def changed_files(base):
    """Names changed between base and the working tree, new files included; all files when there is no base."""
    if not base:
        return set(git("ls-files").split("\n"))
    return set((git("diff", "--name-only", base) + "\n" + git("ls-files", "-o", "--exclude-standard")).split("\n"))


def split_by_change(sources, changed):
    """(changed, others) of the compiled sources, tests last in each."""
    stems = {os.path.splitext(name)[0] for name in changed}
    is_changed = lambda name: name in changed or os.path.splitext(name)[0].removesuffix("_test") in stems
    sources = sorted(sources, key=lambda name: (name.endswith("_test.cc") or name.startswith("tests/"), name))
    return [s for s in sources if is_changed(s)], [s for s in sources if not is_changed(s)]


def compiled_sources(build):
    root = pathlib.Path.cwd()
    files = (pathlib.Path(entry["file"]) for entry in json.loads((build / "compile_commands.json").read_text()))
    return sorted({str(f.relative_to(root)) for f in files if f.is_relative_to(root) and not f.is_relative_to(build)})


def run(build, name):
    command = [CLANG_TIDY, "--quiet", "-p", str(build), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_PER_FILE)
    except subprocess.TimeoutExpired:
        return f"{name}: clang-tidy took more than {SECONDS_PER_FILE} s"
    return "" if done.returncode == 0 else (done.stdout.strip() or done.stderr.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=lambda path: pathlib.Path(path).resolve(), required=True)
    parser.add_argument("--base", default=None)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()

    base = options.base or default_base()
    files, others = split_by_change(compiled_sources(options.build), changed_files(base))
    print(f"tidy: {len(files)} files changed since {base[:10] or 'the beginning'}"
          + (f", then {len(others)} others" if options.all else ""), flush=True)
    files += others if options.all else []
    deadline = time.monotonic() + 60 * options.minutes
    found = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        check = lambda name: run(options.build, name) if time.monotonic() < deadline else None
        for output in pool.map(check, files):
            skipped += output is None
            if output:
                found += 1
                print(output, flush=True)
    print(f"tidy: {len(files) - skipped} files looked at, {found} with findings"
          + (f", {skipped} NOT looked at: {options.minutes:g} minutes were over" if skipped else ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
