#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.cc: the character data that the tokenizer needs, and no more.

usage: unicode_tables.py > src/tokenizer/unicode_tables.cc
needs: the Python packages unicodedata2 16.0.0 and fonttools 4.56.0, which carry data of Unicode 16.0, and perl

General categories and scripts are those of Unicode 16.0, as in the tokenizers library 0.23 and in tiktoken. Canonical
decompositions and combining classes are limited to the characters of Unicode 9.0: that library normalises by tables of
that age, and a character that is younger passes through it unchanged. Perl knows the age of each character.
"""
import re
import subprocess
import sys

from fontTools import unicodedata as scripts
import unicodedata2 as ucd

VERSION = "16.0.0"
NFC_VERSION = "9.0"
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
SCRIPTS = ("Han Hiragana Katakana Bopomofo Hangul Latin Greek Cyrillic Armenian Georgian Hebrew Arabic Devanagari Bengali "
           "Gujarati Gurmukhi Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Khmer Mongolian Ethiopic").split()
SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NUM_CODE_POINTS = 0x110000
WIDTH = 96


def runs(values):
    """[(value, length)] of equal neighbours."""
    result = []
    for value in values:
        if result and result[-1][0] == value:
            result[-1][1] += 1
        else:
            result.append([value, 1])
    return result


def run_text(values):
    """Each run as its symbol and its length, which is left out where it is 1."""
    return "".join(symbol + (str(length) if length > 1 else "") for symbol, length in runs(values))


def code_points_of(version):
    """The code points that Unicode `version` had assigned."""
    program = f'for (0 .. 0x10FFFF) {{ print "$_\\n" if chr($_) =~ /\\p{{Present_In: {version}}}/ }}'
    listed = subprocess.run(["perl", "-e", "no warnings; " + program], capture_output=True, check=True, text=True)
    return {int(line) for line in listed.stdout.split()}


def script_name(code_point):
    return scripts.script_name(scripts.script(chr(code_point)))


def decompositions(known):
    """CODE=FIRST or CODE=FIRST+SECOND in hexadecimal digits; ! for a pair that does not compose again."""
    for code_point in sorted(known):
        mapping = ucd.decomposition(chr(code_point))
        if not mapping or mapping.startswith("<"):
            continue
        parts = "+".join(f"{int(part, 16):X}" for part in mapping.split())
        is_excluded = "+" in parts and ucd.normalize("NFC", chr(code_point)) != chr(code_point)
        yield f"{code_point:X}={parts}" + ("!" if is_excluded else "")


def literal(name, text):
    """A C++ string constant, cut into lines at places where no number or word is cut."""
    lines, line = [], ""
    for token in re.findall(r"[^ ]+ ?" if " " in text else r"\D\d*", text):
        if len(line) + len(token) > WIDTH - 6:
            lines.append(line)
            line = ""
        line += token
    lines.append(line)
    return f"const char {name}[] =\n" + "\n".join(f'    "{one}"' for one in lines) + ";\n"


def main():
    if ucd.unidata_version != VERSION or scripts.script("\U00016D40") != "Krai":
        sys.exit(f"unicode_tables.py: unicodedata2 has Unicode {ucd.unidata_version}; both packages must have {VERSION}")
    known = code_points_of(NFC_VERSION)
    category = {name: symbol for name, symbol in zip(CATEGORIES, SYMBOLS)}
    script = {name: symbol for name, symbol in zip(SCRIPTS, SYMBOLS)}
    classes = [ucd.combining(chr(c)) if c in known else 0 for c in range(NUM_CODE_POINTS)]
    print(f"// Written by tools/unicode_tables.py from the data of Unicode {VERSION}; not edited by hand.")
    print('#include "tokenizer/unicode_tables.h"\n')
    print("namespace wideload::tokenizer {\n")
    print(literal("kGeneralCategoryRuns", run_text(category[ucd.category(chr(c))] for c in range(NUM_CODE_POINTS))))
    print(literal("kScriptRuns", run_text(script.get(script_name(c), ".") for c in range(NUM_CODE_POINTS))))
    print(literal("kCombiningClassRuns", " ".join(f"{value}*{length}" for value, length in runs(classes))))
    print(literal("kCanonicalDecompositions", " ".join(decompositions(known))))
    print("}  // namespace wideload::tokenizer")


if __name__ == "__main__":
    main()
