#!/usr/bin/env python3
"""Writes src/jinja/python_tables.cc: what Python's str knows of characters.

usage: python_text_tables.py OUT.cc    run it with the Python whose Unicode version templates are to see
"""
import sys
import unicodedata

CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TESTS = (("kPrintable", str.isprintable), ("kAlpha", str.isalpha), ("kDecimal", str.isdecimal),
         ("kDigit", str.isdigit), ("kNumeric", str.isnumeric),
         ("kTitleLetters", lambda c: unicodedata.category(c) == "Lt"))
LETTERS = (("kLower", str.islower), ("kUpper", str.isupper))
MAPS = (("kToUpper", str.upper, str), ("kToLower", str.lower, str),
        ("kToTitle", str.title, str.upper))  # what differs from the last


def ranges(test):
    found = []
    for code in CODES:
        if not test(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def strided(codes_with_delta):
    """Runs [first, last, stride, delta] of characters one or two apart with the same delta."""
    runs = []
    for code, delta in codes_with_delta:
        step = code - runs[-1][1] if runs else 0
        if runs and runs[-1][3] == delta and step in (1, 2) and (runs[-1][2] == step or runs[-1][0] == runs[-1][1]):
            runs[-1][1:3] = [code, step]
        else:
            runs.append([code, code, 1, delta])
    return runs


def case_ranges(convert, base):
    """Runs of characters that change by the same distance; and those that become several."""
    mapped = [(code, convert(chr(code))) for code in CODES if convert(chr(code)) != base(chr(code))]
    runs = strided((code, ord(text) - code) for code, text in mapped if len(text) == 1)
    return runs, [(code, text) for code, text in mapped if len(text) > 1]


def lines(entries, width=100):
    line = ""
    for entry in entries:
        if len(line) + len(entry) > width - 4:
            yield "    " + line
            line = ""
        line += entry
    yield "    " + line


def run_text(run):
    return "{" + ",".join(map(str, run)) + "},"


def literal(text):
    # Three octal digits each: no digit that follows can be taken for a part of them.
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


def main():
    out = ["// Made by tools/python_text_tables.py with Unicode " + unicodedata.unidata_version + ".",
           "// clang-format off", '#include "jinja/python_tables.h"', "", "namespace wideload::jinja {",
           "namespace {", ""]
    tail = []
    for name, test in TESTS:
        out += [f"constexpr CodeRange {name}Data[] = {{",
                *lines(f"{{{first},{last}}}," for first, last in ranges(test)), "};"]
        tail.append(f"const std::span<const CodeRange> {name} = {name}Data;")
    for name, test in LETTERS:
        runs = strided((code, 0) for code in CODES if test(chr(code)))
        out += [f"constexpr CaseRange {name}Data[] = {{", *lines(run_text(run) for run in runs), "};"]
        tail.append(f"const std::span<const CaseRange> {name} = {name}Data;")
    for name, convert, base in MAPS:
        runs, special = case_ranges(convert, base)
        out += [f"constexpr CaseRange {name}Ranges[] = {{",
                *lines(run_text(run) for run in runs), "};",
                f"constexpr SpecialCase {name}Special[] = {{",
                *lines(f"{{{code},{literal(text)}}}," for code, text in special), "};"]
        tail.append(f"const CaseMap {name} = {{{name}Ranges, {name}Special}};")
    out += ["", "}  // namespace", "", *tail, "", "}  // namespace wideload::jinja"]
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
