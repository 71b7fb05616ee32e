"""Tests of tools/check_layers.py on small trees that break one rule each."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_layers  # noqa: E402

GOOD = {
    "src/base/CMakeLists.txt": "wideload_library(base\n  SOURCES a.cc)\n",
    "src/base/README.md": "# base\n",
    "src/base/a.h": "// A.\n",
    "src/tensor/CMakeLists.txt": "# a comment (with parentheses)\nwideload_library(tensor\n  SOURCES b.cc\n  DEPS base)\n",
    "src/tensor/README.md": "# tensor\n",
    "src/tensor/b.h": '// B.\n#include <vector>\n#include "base/a.h"\n#include "tensor/b.h"\n',
    "src/model/CMakeLists.txt": "wideload_library(model SOURCES c.cc TESTS c_test.cc DEPS tensor TEST_LIBS wideload_base)\n",
    "src/model/README.md": "# model\n",
    "src/model/c.cc": '#include "tensor/b.h"\n',
    "src/model/c_test.cc": '#include "base/a.h"\n#include "tensor/b.h"\n',
    "apps/main.cc": '#include "base/a.h"\n#include "commands.h"\n',
}


class CheckLayers(unittest.TestCase):
    def problems(self, **changes):
        """The problems of GOOD with these files changed; names use __ for / and are given as in GOOD."""
        with tempfile.TemporaryDirectory() as root:
            for name, text in {**GOOD, **changes.get("files", {})}.items():
                if text is None:
                    continue
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return [problem.replace(root + "/", "") for problem in check_layers.check(root)]

    def assert_one(self, files, expected):
        problems = self.problems(files=files)
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(expected, problems[0])

    def test_accepts_a_tree_that_keeps_the_rules(self):
        self.assertEqual(self.problems(), [])

    def test_refuses_an_include_of_a_module_that_deps_does_not_name(self):
        self.assert_one({"src/base/a.h": '// A.\n#include "tensor/b.h"\n'},
                        "src/base/a.h:2: includes tensor/b.h, but DEPS of base does not name tensor")

    def test_refuses_an_include_that_only_a_dependency_names(self):
        self.assert_one({"src/model/d.cc": '#include "base/a.h"\n'}, "DEPS of model does not name base")

    def test_refuses_angle_brackets_around_a_module(self):
        self.assert_one({"src/base/a.h": "// A.\n#include <tensor/b.h>\n"}, "DEPS of base does not name tensor")

    def test_lets_only_a_fuzzer_use_the_deps_of_its_fuzzer_call(self):
        cmake = GOOD["src/model/CMakeLists.txt"] + "wideload_fuzzer(c SOURCES fuzz_c.cc DEPS model base)\n"
        files = {"src/model/CMakeLists.txt": cmake, "src/model/fuzz_c.cc": '#include "base/a.h"\n'}
        self.assertEqual(self.problems(files=files), [])
        self.assert_one({**files, "src/model/d.cc": '#include "base/a.h"\n'}, "src/model/d.cc:1")

    def test_refuses_a_cycle_of_deps(self):
        self.assert_one({"src/base/CMakeLists.txt": "wideload_library(base SOURCES a.cc DEPS model)\n",
                         "src/base/a.cc": '#include "model/c.h"\n'},
                        "DEPS form a cycle: base -> model -> tensor -> base")

    def test_refuses_a_dependency_that_only_tests_and_fuzzers_include(self):
        cmake = "wideload_library(model SOURCES c.cc TESTS c_test.cc DEPS tensor base)\n"
        files = {"src/model/CMakeLists.txt": cmake, "src/model/fuzz_c.cc": '#include "base/a.h"\n'}
        self.assert_one(files, "src/model/CMakeLists.txt: DEPS names base, which no file of the library includes")
        self.assertEqual(self.problems(files={**files, "src/model/c.cc": '#include "base/a.h"\n#include "tensor/b.h"\n'}), [])

    def test_refuses_a_cycle_of_includes_between_sub_folders_of_a_module(self):
        folders = {"src/base/a/x.h": '// X.\n#include "base/b/y.h"\n', "src/base/b/y.cc": '#include "base/c/z.h"\n',
                   "src/base/c/z_test.cc": '#include "base/a/x.h"\n', "src/base/c/z.h": '// Z.\n#include "base/a.h"\n'}
        self.assertEqual(self.problems(files=folders), [])
        self.assert_one({**folders, "src/base/c/z.h": '// Z.\n#include "base/a/x.h"\n'},
                        "src/base: includes form a cycle: a -> b -> c -> a")

    def test_compares_the_table_of_modules_with_the_modules(self):
        def table(*names):
            rows = "".join(f"| {name} | what it is |\n" for name in names)
            return {"docs/architecture.md": f"# A\n\n## Modules\n| module | what |\n|---|---|\n{rows}\n## Words\n| x | y |\n"}

        self.assertEqual(self.problems(files=table("base", "tensor", "model")), [])
        self.assert_one(table("base", "model"), "has no row for tensor")
        self.assert_one(table("base", "tensor", "model", "core"), "has core, which is no module")
        self.assert_one(table("base", "model", "tensor"), "has model above tensor, which it includes")

    def test_refuses_a_dependency_that_is_no_module(self):
        self.assert_one({"src/base/CMakeLists.txt": "wideload_library(base SOURCES a.cc DEPS core)\n"},
                        "DEPS names core, which is no module")

    def test_refuses_source_that_includes_an_app(self):
        self.assert_one({"src/base/a.h": '// A.\n#include "apps/commands.h"\n'}, "includes apps/commands.h")

    def test_refuses_an_include_without_its_module(self):
        self.assert_one({"src/base/b.h": '// B.\n#include "a.h"\n'}, "src/base/b.h:2: includes a.h")

    def test_refuses_a_module_without_readme(self):
        self.assert_one({"src/base/README.md": None}, "src/base/README.md: is missing")

    def test_refuses_a_readme_of_sixteen_lines(self):
        self.assertEqual(self.problems(files={"src/base/README.md": "line\n" * 15}), [])
        self.assert_one({"src/base/README.md": "line\n" * 16}, "has 16 lines; at most 15")

    def test_refuses_a_long_cmake_file_but_of_compute(self):
        padding = "# why\n" * 20
        self.assert_one({"src/base/CMakeLists.txt": GOOD["src/base/CMakeLists.txt"] + padding}, "has 22 lines; at most 20")
        compute = {"src/compute/CMakeLists.txt": "wideload_library(compute SOURCES d.cc)\n" + padding,
                   "src/compute/README.md": "# compute\n"}
        self.assertEqual(self.problems(files=compute), [])

    def test_refuses_a_folder_without_its_library(self):
        self.assert_one({"src/base/CMakeLists.txt": "add_library(base a.cc)\n"}, "must hold exactly one wideload_library(base")

    def test_refuses_an_app_that_includes_a_file_that_is_not_there(self):
        self.assert_one({"apps/main.cc": '#include "base/gone.h"\n'}, "apps/main.cc:1: includes base/gone.h")


if __name__ == "__main__":
    unittest.main()
