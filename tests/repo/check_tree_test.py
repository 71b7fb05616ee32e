"""Tests of tools/check_tree.py on small trees that break one rule each."""
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_tree  # noqa: E402

HEADER = "// What this is. Thread-safe.\n#pragma once\n"


def function(lines, head="int F(int x) {"):
    return head + "\n" + "  x += 1;\n" * (lines - 2) + "}\n"


class CheckTree(unittest.TestCase):
    def problems(self, files, executable=()):
        with tempfile.TemporaryDirectory() as root:
            for name, content in files.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
                path.chmod(0o755 if name in executable else 0o644)
            return check_tree.check(root)

    def assert_one(self, files, expected):
        problems = self.problems(files)
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(expected, problems[0])

    def test_accepts_files_within_the_limits(self):
        self.assertEqual(self.problems({"src/a/x.h": HEADER, "src/a/x.cc": function(80), "dev": "#!/bin/sh\n"}, ["dev"]), [])

    def test_refuses_a_file_of_501_lines_but_lets_a_kernel_have_800(self):
        self.assert_one({"src/a/x.cc": "int a;\n" * 501}, "src/a/x.cc: has 501 lines; at most 500")
        self.assertEqual(self.problems({"src/compute/cpu/x.cc": "int a;\n" * 800}), [])
        self.assert_one({"src/compute/cpu/x.cc": "int a;\n" * 801}, "at most 800")

    def test_refuses_a_function_of_81_lines_wherever_it_stands(self):
        self.assert_one({"src/a/x.cc": "\n" + function(81)}, "line 2: a function of 81 lines")
        for around in ("namespace a {\nnamespace {\n%s}\n}\n", "class A : public B<int(int)> {\n public:\n%s};\n",
                       'extern "C" {\n%s}\n', "struct alignas(64) A {\n%s};\n"):
            self.assert_one({"src/a/x.cc": around % function(81)}, "a function of 81 lines")
            self.assertEqual(self.problems({"src/a/x.cc": around % function(80)}), [])
        self.assert_one({"src/a/x_test.cc": function(81, "TEST(A, StatesAFact) {")}, "a function of 81 lines")
        self.assert_one({"src/a/x.cc": function(81, "template <class T>\nauto F(T t) -> int {").replace("x", "t", 1)}, "82 lines")

    def test_is_not_misled_by_braces_in_strings_comments_and_macros(self):
        text = ("#define OPEN(x) \\\n  if (x) {\n// {\n/* { */\nconst char* a = \"{\";\nchar b = '{';\n"
                "const char* c = R\"x({ \" )x\";\nint d = 1'000'000;\n")
        self.assertEqual(self.problems({"src/a/x.cc": text + function(80) + function(80)}), [])
        self.assert_one({"src/a/x.cc": text + function(80) + function(81)}, "a function of 81 lines")

    def test_refuses_a_header_without_opening_comment(self):
        self.assert_one({"src/a/x.h": "#pragma once\n// Late.\n"}, "does not open with a comment")

    def test_refuses_paths_of_a_machine_and_registry_hosts(self):
        for word in check_tree.FORBIDDEN:
            self.assert_one({"docs/a.md": f"see {word}x\n"}, f"line 1: holds {word}")
        self.assertEqual(self.problems({"docs/a.md": "../shared/models and the work/ of others\n"}), [])

    def test_refuses_a_script_that_is_not_executable(self):
        files = {"tools/a.py": "#!/usr/bin/env python3\n"}
        self.assert_one(files, "is not executable")
        self.assertEqual(self.problems(files, executable=["tools/a.py"]), [])

    def test_refuses_crlf_and_a_missing_last_newline(self):
        self.assert_one({"docs/a.md": "one\r\ntwo\n"}, "CRLF")
        self.assert_one({"docs/a.md": "one\ntwo"}, "no newline at its end")

    def test_leaves_the_text_of_test_data_alone(self):
        self.assertEqual(self.problems({"testdata/a.txt": "one\r\ntwo", "models/m/a.json": "{}"}), [])

    def test_refuses_a_todo_that_says_nothing(self):
        todo = "TO" "DO"
        for empty in (todo, f"{todo}:", f"{todo}()", f"{todo}(name):"):
            self.assert_one({"src/a/x.cc": f"// {empty}\n"}, "must say what is to be done")
        self.assertEqual(self.problems({"src/a/x.cc": f"// {todo}(name): use the table\n// {todo}: measure\n"}), [])

    def test_refuses_links_to_files_that_are_not_there(self):
        self.assert_one({"README.md": "[a](docs/b.md)\n"}, "README.md: links to docs/b.md, which does not exist")
        self.assertEqual(self.problems({"README.md": "[a](docs/b.md#part) [c](https://example.org/c)\n",
                                        "docs/b.md": "[up](../README.md)\n"}), [])

    def test_refuses_pages_that_the_index_does_not_name(self):
        files = {"docs/README.md": "[a](a.md)\n", "docs/a.md": "a\n", "docs/adr/1.md": "b\n"}
        self.assert_one(files, "docs/README.md: does not name docs/adr/1.md")

    def test_refuses_a_large_file_and_a_large_tree(self):
        with mock.patch.multiple(check_tree, MAX_FILE_BYTES=100, MAX_TREE_BYTES=250):
            self.assert_one({"models/a.bin": b"\0" * 101}, "models/a.bin: has 101 bytes; at most 100")
            self.assert_one({f"models/{i}.bin": b"\0" * 100 for i in range(3)}, "the repository has 300 bytes")

    def test_looks_at_what_git_would_track_and_not_at_what_it_ignores(self):
        with tempfile.TemporaryDirectory() as root:
            subprocess.run(["git", "init", "-q", root], check=True)
            pathlib.Path(root, ".gitignore").write_text("/build/\n/out/\n")
            for folder in ("build", "out", "src"):
                pathlib.Path(root, folder).mkdir()
                pathlib.Path(root, folder, "x.h").write_text("#pragma once\n")
            self.assertEqual([problem.split(":")[0] for problem in check_tree.check(root)], ["src/x.h"])


if __name__ == "__main__":
    unittest.main()
