#!/usr/bin/env python3
"""Counts the public declarations of src/ that say what they promise, and holds their share to a number that only rises.

usage: contracts.py [ROOT] [--list [FOLDER]] [--update]

Counted are, in headers (testing.h, *_impl.h, *_kernel.h and *_kernels.h aside), what another file can name: types, functions, constants and aliases of
a namespace, and public member functions. One has a contract if a comment stands right above it or on one of its lines; an
overload, or a constant in a row of them, shares that of the line above; the only type of a header, and the one it is named
after, have the header's opening comment. Not counted, as nothing is left to say: overrides (the interface says it),
operators, destructors, constructors that move or take no arguments, what is defaulted or deleted, forward declarations, data members, and
accessors: const, without arguments, one return statement that the header shows.

Without options: prints the share; exit code 1 if it is below the one in tests/repo/contract_share.txt. --list names those
without (in FOLDER), --update writes the share down where it has risen.
"""
import argparse
import pathlib
import re
import sys

SHARE_FILE = "tests/repo/contract_share.txt"
TOKEN = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)'
    r'|(?P<directive>^[ \t]*#(?:\\\n|[^\n])*)'
    r'|(?P<string>R"(?P<tag>\w*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-zA-Z_])\'(?:\\.|[^\'\\\n])+\')', re.S | re.M)
TEMPLATE = re.compile(r"^template\s*<")
TYPE = re.compile(r"^(class|struct|union|enum(?:\s+class|\s+struct)?)\s+(?:\[\[\w+\]\]\s*|alignas\([^)]*\)\s*)*([\w:]+)")
NOTHING_TO_SAY = re.compile(r"^(friend|static_assert|extern template|using namespace|namespace)\b|^\[\[|^$")
ACCESSOR = re.compile(r"^return\b[^;]*;$")


def blank(text):
    """The text with comments, directives and strings turned to blanks, and the lines that hold comments."""
    commented = set()

    def replace(match):
        if match["comment"]:
            first = text.count("\n", 0, match.start()) + 1
            commented.update(range(first, first + match[0].count("\n") + 1))
        return re.sub(r"[^\n]", "0" if match["string"] else " ", match[0])

    return TOKEN.sub(replace, text), commented


def without_template(head):
    """The head without its leading template<...> and requires clauses."""
    while TEMPLATE.match(head):
        depth = 0
        for i, letter in enumerate(head):
            depth += (letter == "<") - (letter == ">")
            if letter == ">" and depth == 0:
                head = head[i + 1:].strip()
                break
        else:
            return head
    return head


class Scope:
    def __init__(self, kind, is_public, name=""):
        self.kind, self.is_public, self.name = kind, is_public, name


class Declaration:
    def __init__(self, name, kind, first, last):
        self.name, self.kind, self.first, self.last, self.has_contract = name, kind, first, last, False


def function_name(head):
    before = head[:head.index("(")]
    if match := re.search(r"operator\s*\S*\s*$", before):
        return match[0].strip()
    return (re.findall(r"~?\w+", before) or [""])[-1]


def is_counted_function(head, body, scope):
    name = function_name(head)
    if re.search(r"\b(override|final)\b", head) or re.search(r"=\s*(default|delete)$", head):
        return False
    if name.startswith(("operator", "~")) or "operator" in head[:head.index("(")]:
        return False
    arguments = head[head.index("(") + 1:].split(")")[0].strip()
    if scope.kind == "type" and name == scope.name and (not arguments or "&&" in arguments):
        return False
    is_const = re.search(r"\)\s*const\b", head) or head.startswith("static constexpr")
    return not (is_const and not arguments and ACCESSOR.match(" ".join(body.split())))


def end_of_block(text, start):
    """The index behind the brace that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    return len(text)


def is_function(head):
    """Whether a parenthesis opens before an initialiser."""
    plain = re.sub(r"<[^<>()]*>", "", re.sub(r"<[^<>()]*>", "", head))
    paren = plain.find("(")
    return paren > 0 and "=" not in plain[:paren].replace("operator==", "").replace("operator=", "")


def declarations(text, stem=""):
    """The public declarations of one header, whose file has the name `stem`."""
    code, commented = blank(text)
    scopes, start, found = [Scope("namespace", True)], 0, []
    i = 0

    def line_of(index):
        return code.count("\n", 0, index) + 1

    def add(name, kind, begin, end):
        if scopes[-1].is_public and all(scope.is_public for scope in scopes):
            found.append(Declaration(name, kind, line_of(begin), line_of(end)))

    while match := re.compile(r"[{};]|\b(public|private|protected)\s*:(?!:)").search(code, i):
        i = match.end()
        raw = code[start:match.start()]
        begin = start + len(raw) - len(raw.lstrip())
        head = without_template(" ".join(raw.split()))
        start = i
        if match[1]:
            scopes[-1].is_public = match[1] == "public"
        elif match[0] == "{" and raw.count("(") > raw.count(")"):  # braces of a default argument
            start, i = start - len(raw) - 1, end_of_block(code, match.start())
        elif match[0] == "}":
            if len(scopes) > 1:
                scopes.pop()
        elif match[0] == "{" and (head.startswith("namespace") or head.startswith("extern 0")):
            scopes.append(Scope("namespace", head != "namespace"))
        elif match[0] == "{" and (named := TYPE.match(head)):
            add(named[2], "type", begin, match.start())
            if named[1].startswith("enum"):
                i = start = end_of_block(code, match.start())
            else:
                scopes.append(Scope("type", named[1] != "class", named[2]))
        elif match[0] == "{":
            end = end_of_block(code, match.start())
            body = code[match.end():end - 1]
            if is_function(head):
                while re.match(r"\s*[,{]", code[end:end + 200]):  # initialisers in braces of a constructor
                    brace = code.index("{", end)
                    end = end_of_block(code, brace)
                    body = code[brace + 1:end - 1]
                if is_counted_function(head, body, scopes[-1]):
                    add(function_name(head), "function", begin, match.start())
                i = start = end
            else:  # an initialiser: the declaration goes on to its semicolon
                semicolon = code.find(";", end)
                if scopes[-1].kind == "namespace" and head and not NOTHING_TO_SAY.match(head):
                    add(re.split(r"[=\[{]", head)[0].split()[-1], "constant", begin, semicolon)
                i = start = semicolon + 1 if semicolon >= 0 else len(code)
        elif match[0] == ";" and head and not NOTHING_TO_SAY.match(head):
            if head.startswith(("using", "typedef")):
                if "=" in head:
                    add(head.split("=")[0].split()[-1], "alias", begin, match.start())
            elif TYPE.match(head) and "(" not in head and "=" not in head:
                pass  # a forward declaration
            elif is_function(head):
                if is_counted_function(head, "", scopes[-1]):
                    add(function_name(head), "function", begin, match.start())
            elif scopes[-1].kind == "namespace":
                add(re.split(r"[=\[]", head)[0].split()[-1], "constant", begin, match.start())
    mark_contracts(found, text, commented, stem)
    return found


def mark_contracts(found, text, commented, stem):
    types = [declaration for declaration in found if declaration.kind == "type"]
    for declaration in found:
        lines = range(declaration.first - 1, declaration.last + 1)
        declaration.has_contract = any(line in commented for line in lines)
    for before, declaration in zip(found, found[1:]):  # overloads, and constants in a row
        is_next = declaration.first == before.last + 1 and declaration.kind == before.kind
        if is_next and (declaration.name == before.name or declaration.kind == "constant"):
            declaration.has_contract |= before.has_contract
    for declaration in types if text.startswith("//") else []:
        if len(types) == 1 or declaration.name.lower() == stem.replace("_", ""):
            declaration.has_contract = True


def headers(root):
    return sorted(path for path in (root / "src").rglob("*.h")
                  if path.name != "testing.h" and not path.name.endswith(("_impl.h", "_kernel.h", "_kernels.h")))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", nargs="?", const="src", metavar="FOLDER")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("root", nargs="?", default=".")
    options = parser.parse_args()
    root = pathlib.Path(options.root)
    num_all, num_with, per_module = 0, 0, {}
    for header in headers(root):
        name = str(header.relative_to(root))
        found = declarations(header.read_text(), header.stem)
        module = per_module.setdefault(name.split("/")[1], [0, 0])
        for declaration in found:
            num_all, num_with = num_all + 1, num_with + declaration.has_contract
            module[0], module[1] = module[0] + declaration.has_contract, module[1] + 1
            if options.list and not declaration.has_contract and name.startswith(options.list):
                print(f"{name}:{declaration.first}: {declaration.kind} {declaration.name}")
    share = int(1000 * num_with / max(1, num_all)) / 10  # rounded down
    if options.list:
        print("\n".join(f"{name}: {with_contract} of {all_}" for name, (with_contract, all_) in sorted(per_module.items())))
    path = root / SHARE_FILE
    recorded = float(path.read_text()) if path.exists() else 0
    print(f"contracts: {num_with} of {num_all} public declarations have one, {share} %; at least {recorded} % are asked for")
    if options.update and share > recorded:
        path.write_text(f"{share}\n")
    if share < recorded:
        print(f"tools/contracts.py --list names those without; the number in {SHARE_FILE} may only rise")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
