#!/usr/bin/env python3
"""Holds the files of the repository to the limits that keep it simple to read.

usage: check_tree.py [ROOT]    prints one line per violation; exit code 1 if there is one

Sizes of files and functions, the opening comment of headers, strings that belong to somebody's machine, executable
scripts, line ends, TODOs that say nothing, links of Markdown pages to files, and pages of docs/ that docs/README.md does
not name. Function sizes are found by a brace count that fits clang-format's output;
clang-tidy measures them exactly, but only in changed files.
"""
import os
import pathlib
import re
import subprocess
import sys

MAX_LINES = 500
MAX_KERNEL_LINES = 800
KERNEL_FOLDERS = ("src/compute/cpu/", "src/compute/cuda/")
MAX_FUNCTION_LINES = 80
MAX_FILE_BYTES = 30 << 20
MAX_TREE_BYTES = 60 << 20

CPP = (".cc", ".h", ".cu", ".cuh")
CODE = CPP + (".py", ".sh", ".cmake", "CMakeLists.txt")
DATA_FOLDERS = ("testdata/", "models/")  # other people's text and binary files: only their size is checked

# In pieces, so that this file does not hold them itself: paths of build machines, hosts of package registries.
FORBIDDEN = ["/wo" "rk/", "/far" "m/", "/tmp/ba" "sh", "/ro" "ot/", "deb.deb" "ian.org",
             "py" "pi.org", "registry.npm" "js"]
EMPTY_TODO = re.compile(r"\bTO" r"DO\b(?!(\([^)]+\))?:? +\w)")

LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # to a file, not to another host
INDEX = "docs/README.md"

LITERALS = re.compile(
    r'R"(?P<tag>\w*)\(.*?\)(?P=tag)"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+'"
    r"|//[^\n]*|/\*.*?\*/"
    r"|^[ \t]*#(?:\\\n|[^\n])*",  # preprocessor line with its continuations
    re.S | re.M)
SCOPE = re.compile(r"^(template\s*<.*>\s*)?(inline\s+)?(namespace|extern|class|struct|union|enum)\b", re.S)


def list_files(root):
    """Paths relative to root: what git tracks or would track; outside of git, everything but build/."""
    names = []
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True)
        names = [name for name in listed.stdout.decode().split("\0") if name]
    names = names or [str(path.relative_to(root)) for path in root.rglob("*")]
    return sorted(name for name in names if (root / name).is_file() and not name.startswith("build/"))


def long_functions(text):
    """(first line, number of lines) of every function longer than allowed."""
    blank = LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    depth, function_depth, head_start, head_line = 0, None, 0, 0
    for match in re.finditer(r"[{};]|\b(public|private|protected)\s*:(?!:)", blank):
        if match[0] == "{":
            head = blank[head_start:match.start()]
            if function_depth is None and "(" in head and not SCOPE.match(head.strip()):
                function_depth = depth
                head_line = blank.count("\n", 0, head_start + len(head) - len(head.lstrip())) + 1
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == function_depth:
                function_depth = None
                lines = blank.count("\n", 0, match.start()) + 1 - head_line + 1
                if lines > MAX_FUNCTION_LINES:
                    yield head_line, lines
        head_start = match.end()


def check_text(name, text):
    lines = text.split("\n")
    if "\r\n" in text:
        yield "has CRLF line ends"
    if text and not text.endswith("\n"):
        yield "has no newline at its end"
    for number, line in enumerate(lines, 1):
        for word in FORBIDDEN:
            if word in line:
                yield f"line {number}: holds {word}, which belongs to one machine or a package registry"
        if name.endswith(CODE) and EMPTY_TODO.search(line):
            yield f"line {number}: a TO" "DO must say what is to be done"


def check_code(name, text):
    allowed = MAX_KERNEL_LINES if name.startswith(KERNEL_FOLDERS) else MAX_LINES
    if (found := text.count("\n")) > allowed:
        yield f"has {found} lines; at most {allowed} are allowed"
    if name.endswith(CPP):
        for line, length in long_functions(text):
            yield f"line {line}: a function of {length} lines; at most {MAX_FUNCTION_LINES} are allowed"
    if name.endswith((".h", ".cuh")) and not text.startswith("// "):
        yield "does not open with a comment that says what it is and its thread rule"


def check_file(path, name):
    content = path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        yield f"has {len(content)} bytes; at most {MAX_FILE_BYTES} are allowed"
    if content.startswith(b"#!") and not os.access(path, os.X_OK):
        yield "is a script (#!) but is not executable"
    if name.startswith(DATA_FOLDERS) or b"\0" in content[:8192]:
        return
    text = content.decode("utf-8", errors="replace")
    yield from check_text(name, text)
    if name.endswith(CODE) or content.startswith(b"#!"):
        yield from check_code(name, text)


def linked_files(root, page):
    """Relative to root: what the page's links name, whether it is there or not."""
    for match in LINK.finditer((root / page).read_text(errors="replace")):
        yield os.path.normpath(os.path.join(os.path.dirname(page), match[1]))


def check_links(root, names):
    pages = [name for name in names if name.endswith(".md") and not name.startswith(DATA_FOLDERS)]
    for page in pages:
        for target in linked_files(root, page):
            if not (root / target).exists():
                yield f"{page}: links to {target}, which does not exist"
    if INDEX in pages:
        indexed = {INDEX, *linked_files(root, INDEX)}
        yield from (f"{INDEX}: does not name {page}" for page in pages
                    if page.startswith("docs/") and page not in indexed)


def check(root):
    root = pathlib.Path(root)
    names = list_files(root)
    problems = [f"{name}: {problem}" for name in names for problem in check_file(root / name, name)]
    problems += check_links(root, names)
    total = sum((root / name).stat().st_size for name in names)
    if total > MAX_TREE_BYTES:
        problems.append(f"the repository has {total} bytes; at most {MAX_TREE_BYTES} are allowed")
    return problems


def main():
    problems = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(problems) or "tree: every file is within the limits")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
