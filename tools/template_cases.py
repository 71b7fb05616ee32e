#!/usr/bin/env python3
"""Makes random templates and what jinja2 renders by them, for jinja_test to compare with.

usage: template_cases.py SEED COUNT OUT.json    needs jinja2 3.1, from the Python package index

The templates are drawn from a grammar of expressions and statements; those that jinja2 refuses are kept, as refused.
WIDELOAD_JINJA_CASES=OUT.json jinja_test --gtest_filter='*AsJinja2Does' compares.
"""
import json
import random
import re
import signal
import sys
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.sandbox

VARIABLES = {
    "s": "Hello, W\u00f6rld  ", "t": " x\ty\u00a0", "q": "it's \"q\" \\ \n\u2028\u00df\u0131", "e": "", "k": "a", "u": "a,b,,c",
    "n": 3, "neg": -7, "big": 2**53 + 1, "f": 2.5, "g": -1e-7, "h": 1e22, "zero": 0, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2, 1], "ls": ["b", "A", "c", "a"], "m": [1, "x", None, [2.0, True]], "el": [], "ed": {},
    "d": {"a": 1, "b": "two", "items": [1, 2], "n": {"x": [5, 6]}, "Z": None},
    "ld": [{"role": "user", "content": "hi", "p": 2}, {"role": "tool", "content": None, "p": 1},
           {"role": "user", "content": ["x", {"type": "text", "text": "T"}]}],
}
NAMES = list(VARIABLES) + ["nope", "x", "y"]
STRINGS = ["''", "'a'", "\"b'c\"", "'A b'", "', '", "'\\n'", "'\\x41\\u00e9\\t'", "'%s'", "'\u00e4\u00d6\u1e9e'", "'1'", "'-3.5'",
           "'<|x|>'", "'items'", "'a' 'b'", "'role'", "'abcabc'", "'\\q'"]
FILTERS = ["abs", "batch(2)", "batch(3, 'f')", "capitalize", "center(9)", "count", "d('D')", "default('D', true)", "dictsort",
           "dictsort(true, 'value')", "dictsort(reverse=true)", "first", "float", "float(1.5)", "format(1, 'z')", "groupby('role')",
           "indent", "indent(2, true)", "indent('> ', blank=true)", "int", "int(7)", "int(0, 16)", "items", "join", "join(', ')",
           "join('-', attribute='role')", "last", "length", "list", "lower", "map('upper')", "map(attribute='role')",
           "map(attribute='zz', default='N')", "map('int')", "max", "min", "max(attribute='p')", "reject('none')",
           "rejectattr('content')", "replace('a', 'b')", "replace('', '-')", "replace('l', 'L', 1)", "reverse", "round", "round(1)",
           "round(0, 'ceil')", "safe", "select", "select('string')", "select('gt', 1)", "selectattr('role', 'equalto', 'user')",
           "selectattr('p')", "slice(2)", "slice(3, 'f')", "sort", "sort(true)", "sort(case_sensitive=true)", "sort(attribute='p')",
           "sort(attribute='role,p')", "string", "sum", "sum(start=10)", "title", "tojson", "tojson(indent=2)",
           "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))", "tojson(sort_keys=true)", "trim", "trim('H ')", "truncate(5)",
           "truncate(5, true, '..', 0)", "unique", "upper", "wordcount", "nofilter"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence",
         "iterable", "callable", "odd", "even", "divisibleby 3", "divisibleby(2)", "in [1, 2]", "in 'abc'", "eq 1", "ne(2)", "gt 1", "lt 2",
         "ge 1", "le(1)", "equalto 'a'", "lower", "upper", "sameas none", "escaped", "filter", "test", "nonetest"]
METHODS = ["strip()", "strip('H')", "lstrip()", "rstrip('d ')", "split()", "split(',')", "split(' ', 1)", "rsplit(' ', 1)", "rsplit()",
           "split(none, 1)", "rsplit(none, 1)", "splitlines()", "splitlines(true)", "upper()", "lower()", "title()", "capitalize()",
           "swapcase()", "startswith('H')", "startswith(('x', ' '))", "endswith('d')", "startswith('e', 1)", "endswith('o', 0, 5)",
           "find('l')", "find('l', 3)", "rfind('l')", "index('H')", "count('l')", "count('')", "replace('l', 'x')",
           "replace('l', 'x', 1)", "replace('', '.')", "join(['a', 'b'])", "join(ls)", "isdigit()", "isalpha()", "isalnum()", "isspace()",
           "isupper()", "islower()", "isdecimal()", "isnumeric()", "zfill(9)", "ljust(9)", "rjust(9, '*')", "center(10)", "center(9)",
           "partition('l')", "rpartition('l')", "removeprefix('He')", "removesuffix('  ')", "format(1, a=2)", "items()", "keys()",
           "values()", "get('a')", "get('zz', 5)", "get('zz')", "copy()", "append(1)", "pop()", "update({})", "index(1)", "count(1)",
           "nomethod()", "items", "keys"]
ATTRIBUTES = ["a", "b", "items", "n", "role", "content", "zz", "x", "upper", "0"]
OPS = ["+", "-", "*", "/", "//", "%", "~", "+", "~"]
COMPARE = ["==", "!=", "<", "<=", ">", ">=", "in", "not in"]


class Drawer:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *makers):
        return self.r.choice(makers)()

    def number(self):
        return self.r.choice(["0", "1", "2", "-1", "3", "10", "1.5", "0.1", "2e3", "1_000", "0x1F", "0b11", "0o7", "-2", "7", "1e-5",
                              "123456789.125", "-0.0"])

    def atom(self):
        return self.r.choice([self.r.choice(NAMES), self.r.choice(NAMES), self.number(), self.r.choice(STRINGS),
                              self.r.choice(["true", "false", "none", "True", "None", "[]", "{}", "()", "[1, 2]", "{'a': 1}",
                                             "(1,)", "('a', 2)", "range(3)", "range(5, 0, -2)", "[x, s]", "{1: 2, 'k': l}",
                                             "{1.0: 'x', true: 'y'}", "namespace(a=1).a", "dict(a=1, b=l)", "loop", "varargs"])])

    def slice(self):
        part = lambda: self.r.choice(["", "", "1", "-1", "0", "2", "-3", "10", "none", "n"])
        return self.r.choice([f"[{part()}:{part()}]", f"[{part()}:{part()}:{self.r.choice(['', '2', '-1', '-2', '0'])}]"])

    def expr(self, depth):
        if depth <= 0:
            return self.atom()
        sub = lambda: self.expr(depth - 1)
        wrapped = lambda: self.r.choice(["({})", "({})", "{}"]).format(sub())
        kinds = [
            lambda: f"{wrapped()} {self.r.choice(OPS)} {wrapped()}",
            lambda: f"{wrapped()} {self.r.choice(COMPARE)} {wrapped()}",
            lambda: f"{self.number()} {self.r.choice(COMPARE)} {wrapped()} {self.r.choice(COMPARE)} {self.atom()}",
            lambda: f"{wrapped()} {self.r.choice(['and', 'or'])} {wrapped()}",
            lambda: f"not {wrapped()}", lambda: f"{self.r.choice('+-')}{wrapped()}",
            lambda: f"{wrapped()} | {self.r.choice(FILTERS)}", lambda: f"{self.atom()} | {self.r.choice(FILTERS)}",
            lambda: f"{self.atom()} | {self.r.choice(FILTERS)} | {self.r.choice(FILTERS)}",
            lambda: f"{wrapped()} is {self.r.choice(['', '', 'not '])}{self.r.choice(TESTS)}",
            lambda: f"{self.atom()}.{self.r.choice(METHODS)}", lambda: f"({sub()}).{self.r.choice(METHODS)}",
            lambda: f"{self.r.choice(['s', 't', 'q', 'u'])}.{self.r.choice(METHODS)}",
            lambda: f"{self.r.choice(NAMES)}.{self.r.choice(ATTRIBUTES)}", lambda: f"({sub()}).{self.r.choice(ATTRIBUTES)}",
            lambda: f"{self.r.choice(NAMES)}[{self.atom()}]", lambda: f"({sub()})[{sub()}]",
            lambda: f"{self.r.choice(['s', 'l', 'ls', 'q', 'e', 'm', 'd', 'n', 'ld'])}{self.slice()}", lambda: f"({sub()}){self.slice()}",
            lambda: f"{wrapped()} if {wrapped()} else {wrapped()}", lambda: f"{wrapped()} if {wrapped()}",
            lambda: f"[{sub()}, {sub()}]", lambda: f"({sub()}, {sub()})", lambda: f"{{{self.r.choice(STRINGS)}: {sub()}}}",
            lambda: f"2 ** {self.r.choice(['3', '0', '-1', '0.5', '10'])}",
            lambda: f"'%{self.r.choice(['s', 'r', 'd', '5s', '-5s|', '05d', '.2f', 'x', '+d', '%', '8.3f', 'e', 'g', '.3s', 'X', 'o', 'i', '(a)s'])}' % {wrapped()}",
            lambda: f"'{{{self.r.choice(['', '0', ':5', ':>5', ':^7', '!r', ':*<6', ':.2f', ':05d', ':,', ':x', ':+d', 'k'])}}}'.format({sub()}, k={self.atom()})",
        ]
        return self.r.choice(kinds)()

    def tag(self, text):
        left, right = self.r.choice([("", "")] * 5 + [("-", ""), ("", "-"), ("-", "-"), ("+", ""), ("", "+"), ("+", "-")])
        return f"{{%{left} {text} {right}%}}"

    def text(self):
        return self.r.choice(["a", "b\n", "\n", "  ", "\n  ", "\t", " x ", "\u3000", "\u00a0\n", "\x1c", "{", "}", "%", "\r\n", "\n\n", "",
                              "\n \n", "# "])

    def output(self, depth=2):
        left, right = self.r.choice([("", "")] * 6 + [("-", ""), ("", "-"), ("-", "-"), ("+", "")])
        return f"{{{{{left} {self.expr(self.r.randint(0, depth))} {right}}}}}"

    def body(self, depth):
        return "".join(self.pick(self.text, self.output, lambda: self.statement(depth - 1)) for _ in range(self.r.randint(0, 3)))

    def statement(self, depth):
        if depth <= 0:
            return self.pick(self.text, self.output, self.comment)
        b = lambda: self.body(depth)
        e = lambda: self.expr(self.r.randint(0, 2))
        t = self.tag
        name = lambda: self.r.choice(["x", "y", "n", "s"])
        items = lambda: self.r.choice(["l", "ls", "ld", "d", "d.items()", "s", "m", "range(3)", "el", "nope", "l | select", "d | items",
                                       self.expr(1)])
        loops = ["loop.index", "loop.index0", "loop.first", "loop.last", "loop.length", "loop.revindex", "loop.previtem",
                 "loop.nextitem", "loop.cycle('a', 'b')", "loop.changed(x)", "loop.depth", "loop.revindex0", "x", "y", "loop"]
        kinds = [
            lambda: t(f"if {e()}") + b() + t("endif"),
            lambda: t(f"if {e()}") + b() + t(f"elif {e()}") + b() + t("else") + b() + t("endif"),
            lambda: t(f"for x in {items()}") + b() + "{{ " + self.r.choice(loops) + " }}" + b() + t("endfor"),
            lambda: t(f"for x in {items()} if {self.r.choice(['x', 'loop', 'x is string', self.expr(1)])}") + "{{ " + self.r.choice(loops) + " }}" + t("endfor"),
            lambda: t(f"for x in {items()}") + b() + t("else") + b() + t("endfor"),
            lambda: t(f"for x, y in {items()}") + b() + "{{ x }}{{ y }}" + t("endfor"),
            lambda: t(f"for x in {items()}") + t(f"if {self.r.choice(['loop.index > 1', 'x', e()])}") + t(self.r.choice(["break", "continue"])) + t("endif") + b() + "{{ x }}" + t("endfor"),
            lambda: t(f"for x in [1, [2, [3]]] recursive") + "{{ loop(x) if x is iterable and x is not string else x }}" + "{{ loop.depth }}" + b() + t("endfor"),
            lambda: t(f"set {name()} = {e()}"),
            lambda: t(f"set x, y = {e()}"),
            lambda: t(f"set {name()}") + b() + t("endset") + "{{ x }}",
            lambda: t(f"set {name()} | {self.r.choice(FILTERS)}") + b() + t("endset") + "{{ x }}",
            lambda: t("set ns = namespace(c=0)") + t(f"for x in {items()}") + t(f"set ns.c = ns.c + {self.r.choice(['1', 'x', 'loop.index'])}") + t("endfor") + "{{ ns.c }}",
            lambda: t(f"macro f(x, y={self.atom()})") + b() + "{{ x }}{{ y }}" + t("endmacro") + "{{ f(" + self.r.choice(["", "1", "1, 2", "y=3", "x=1, y=2", "1, 2, 3", "z=1", "*l", "**d"]) + ") }}",
            lambda: t("macro f(x)") + "{{ varargs }}{{ kwargs }}{{ x }}" + t("endmacro") + "{{ f(1, 2, z=3) }}",
            lambda: t("macro f(x)") + "{{ caller(x) if caller is defined else 'none' }}" + b() + t("endmacro") + t("call(y) f(5)") + "{{ y }}" + b() + t("endcall") + "{{ f(1) }}",
            lambda: t(f"filter {self.r.choice(FILTERS)}") + b() + t("endfilter"),
            lambda: t(f"with x = {e()}, y = {e()}") + b() + "{{ x }}" + t("endwith") + "{{ x }}",
            lambda: t("raw") + self.text() + "{{ x }}" + t("endraw"),
            lambda: t("generation") + b() + t("endgeneration"),
            lambda: "{% print " + e() + ", 'z' %}",
            self.comment,
        ]
        return self.r.choice(kinds)()

    def comment(self):
        return self.r.choice(["{# c #}", "{#- c #}", "{# c -#}", "{#- #}", "{#+ c +#}", "  {# c #}\n"])

    def template(self):
        if self.r.random() < 0.6:
            return "{{ " + self.expr(self.r.randint(1, 3)) + " }}"
        return "".join(self.pick(self.text, self.output, lambda: self.statement(3)) for _ in range(self.r.randint(1, 5)))


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime(2025, 3, 9, 14, 5, 7).strftime(form)
    return env


def has_constant_slice(env, template):
    return any(isinstance(item.arg, jinja2.nodes.Slice) and not any(item.node.find_all(jinja2.nodes.Name))
               and not isinstance(item.node, jinja2.nodes.Name) for item in env.parse(template).find_all(jinja2.nodes.Getitem))


def rendered(env, template):
    """The text, or None where jinja2 refuses."""
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        return env.from_string(template).render(**json.loads(json.dumps(VARIABLES)))
    except Exception:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main():
    seed, count, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    drawer, env = Drawer(seed), environment()

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    cases = []
    while len(cases) < count:
        template = drawer.template()
        text = rendered(env, template)
        if text is not None and has_constant_slice(env, template):
            continue  # what it makes of it depends on whether it folds constants
        # Addresses of objects and names of Python's own are nobody's contract.
        if text is not None and re.search(r"[ a-z]*0[xX]|<[gG][eE][nN]|<built-in|<class|<bound|cycler|Markup|<function", text):
            continue
        if text is not None and any(0xD800 <= ord(c) < 0xE000 for c in text):
            continue
        cases.append([template, text])
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"variables": VARIABLES, "cases": cases}, file, ensure_ascii=True, indent=None)
        file.write("\n")


if __name__ == "__main__":
    main()
