#!/usr/bin/env python3
"""Holds src/ to the architecture that the modules' CMakeLists.txt state.

usage: check_layers.py [ROOT]    prints one line per violation; exit code 1 if there is one

A file of module m may include "x/..." only when x is m or is named in the DEPS of m's wideload_library() call; what
a dependency itself depends on does not count. Test files (*_test.cc) may also use the wideload_x of TEST_LIBS, fuzz_*.cc
the DEPS of their wideload_fuzzer(). DEPS name no module that the library does not include, and have no cycle; nor have the
includes between the sub-folders of a module, tests left aside. src includes nothing of apps, tests or bench; every module
has a README.md and a short CMakeLists.txt. The table of modules in docs/architecture.md, where there is one, has a row for
each, below those of its DEPS.
"""
import pathlib
import re
import sys

MAX_README_LINES = 15
MAX_CMAKE_LINES = 20
# compute sets instruction-set flags per file, which takes more lines than one call.
# eplb lists its files by sub-folder.
MAX_CMAKE_LINES_OF = {"compute": 80, "eplb": 40}
SOURCES = {".cc", ".h", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)
KEYWORDS = {"SOURCES", "TESTS", "DEPS", "LIBS", "TEST_LIBS", "SELDOM"}


def calls(cmake_text, function):
    """The argument lists of the calls of `function`: {keyword: [values]}, "" for those before the first keyword."""
    text = re.sub(r"#.*", "", cmake_text)
    for body in re.findall(r"\b%s\s*\(([^)]*)\)" % function, text):
        arguments, keyword = {"": []}, ""
        for word in body.split():
            if word in KEYWORDS:
                keyword = word
            arguments.setdefault(keyword, [])
            if word != keyword:
                arguments[keyword].append(word.strip('"'))
        yield arguments


class Module:
    def __init__(self, folder):
        self.name, self.folder, self.problems = folder.name, folder, []
        cmake, readme = folder / "CMakeLists.txt", folder / "README.md"
        text = cmake.read_text() if cmake.exists() else ""
        libraries = list(calls(text, "wideload_library"))
        if [library[""] for library in libraries] != [[self.name]]:
            self.problems.append(f"{cmake}: must hold exactly one wideload_library({self.name} ...)")
        library = libraries[0] if libraries else {}
        self.deps = set(library.get("DEPS", []))
        linked = {lib[len("wideload_"):] for lib in library.get("TEST_LIBS", []) if lib.startswith("wideload_")}
        self.test_deps = self.deps | linked
        fuzzers = calls(text, "wideload_fuzzer")
        self.fuzz_deps = self.deps.union(*(fuzzer.get("DEPS", []) for fuzzer in fuzzers))
        self.check_length(cmake, MAX_CMAKE_LINES_OF.get(self.name, MAX_CMAKE_LINES))
        self.check_length(readme, MAX_README_LINES)

    def check_length(self, path, allowed):
        if not path.exists():
            self.problems.append(f"{path}: is missing; every module has one")
        elif (found := len(path.read_text().splitlines())) > allowed:
            self.problems.append(f"{path}: has {found} lines; at most {allowed} are allowed")

    def allowed_for(self, file):
        if file.name.startswith("fuzz_"):
            return self.fuzz_deps
        return self.test_deps if file.stem.endswith("_test") else self.deps


def included(file):
    """(line number, is quoted, path) of every #include."""
    text = file.read_text(errors="replace")
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start(2)) + 1, match[1] == '"', match[2]


def sources_of(module):
    return (file for file in sorted(module.folder.rglob("*")) if file.suffix in SOURCES)


def is_library(file):
    return not file.stem.endswith("_test") and not file.name.startswith("fuzz_")


def check_includes(module, modules):
    for file in sources_of(module):
        for line, quoted, path in included(file):
            first = path.split("/")[0] if "/" in path else ""
            if first == module.name or first in module.allowed_for(file) or (first == "wideload" and quoted):
                continue
            if first in modules:
                yield f"{file}:{line}: includes {path}, but DEPS of {module.name} does not name {first}"
            elif quoted or first in ("apps", "tests", "bench"):
                yield f"{file}:{line}: includes {path}; allowed: \"module/file.h\" of src, and <...> for libraries"


def unused_deps(module):
    """What DEPS names though no file of the library includes it: tests have TEST_LIBS, fuzzers their own DEPS."""
    used = {path.split("/")[0] for file in sources_of(module) if is_library(file) for _, _, path in included(file)}
    return sorted(module.deps - used)


def sub_folders(module):
    """{sub-folder: the other sub-folders its library files include}; files of the module's own folder may serve all
    sub-folders and put them together, so they are no part of this."""
    uses = {}
    for file in sources_of(module):
        if file.parent == module.folder or not is_library(file):
            continue
        own = file.relative_to(module.folder).parts[0]
        for _, _, path in included(file):
            if path.startswith(module.name + "/") and path.count("/") > 1:
                uses.setdefault(own, set()).update({path.split("/")[1]} - {own})
    return uses


def cycle(uses):
    """The names along one cycle of {name: names it uses}, or []."""
    done = set()

    def visit(name, path):
        if name in path:
            return path[path.index(name):] + [name]
        if name in done or name not in uses:
            return []
        for other in sorted(uses[name]):
            if found := visit(other, path + [name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(uses) if (found := visit(name, []))), [])


def check_users(root, modules):
    """apps, tests and bench may use every module, by its full path, and each other's files of the same folder."""
    for file in sorted(f for folder in ("apps", "tests", "bench") for f in (root / folder).rglob("*")):
        if file.suffix not in SOURCES:
            continue
        for line, quoted, path in included(file):
            if quoted and path.split("/")[0] in modules and not (root / "src" / path).exists():
                yield f"{file}:{line}: includes {path}, which does not exist"


def check_table(root, modules):
    page = root / "docs" / "architecture.md"
    if not page.exists():
        return
    section = page.read_text().partition("\n## Modules\n")[2].partition("\n## ")[0]
    rows = [name for name in re.findall(r"^\| (\w+) \|", section, re.M) if name != "module"]
    yield from (f"{page}: the table of modules has no row for {name}" for name in modules if name not in rows)
    yield from (f"{page}: the table of modules has {name}, which is no module" for name in rows if name not in modules)
    for place, name in enumerate(rows):
        for dep in sorted(modules[name].deps.intersection(rows[place:]) if name in modules else ()):
            yield f"{page}: the table of modules has {name} above {dep}, which it includes"


def check(root):
    root = pathlib.Path(root)
    folders = sorted(f for f in (root / "src").iterdir() if f.is_dir())
    modules = {folder.name: Module(folder) for folder in folders}
    problems = []
    for module in modules.values():
        problems += module.problems
        problems += [f"{module.folder}/CMakeLists.txt: DEPS names {dep}, which is no module"
                     for dep in sorted(module.deps - modules.keys())]
        problems += check_includes(module, modules)
        problems += [f"{module.folder}/CMakeLists.txt: DEPS names {dep}, which no file of the library includes"
                     for dep in unused_deps(module) if dep in modules]
        if found := cycle(sub_folders(module)):
            problems.append(f"{module.folder}: includes form a cycle: " + " -> ".join(found))
    if found := cycle({name: module.deps for name, module in modules.items()}):
        problems.append("DEPS form a cycle: " + " -> ".join(found))
    problems += check_table(root, modules)
    return problems + list(check_users(root, modules))


def main():
    problems = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(problems) or "layers: every include is named by DEPS, no cycle")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
