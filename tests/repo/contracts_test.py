"""Tests of tools/contracts.py: what counts as a declaration and as its contract."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "contracts.py"
sys.path.insert(0, str(TOOL.parent))
import contracts  # noqa: E402

HEADER = """// Queues.
#pragma once
#include <vector>

namespace wideload {

// A queue.
struct Queue {
  int size = 0;
  int Twice() const { return 2 * size; }
  void Push(int value);
  // Takes the oldest.
  int Pop();
  bool operator==(const Queue&) const = default;
};

class Closed {
 public:
  Closed() = default;
  explicit Closed(int n) : n_{n}, m_(0) {}
  void Run() override;
  // Of one.
  void Add(int one);
  void Add(int one, int two);
  void Other(std::vector<int> a = {}, int b = 2);  // says something

 private:
  void Hidden();
  struct Inner { int x; };
  int n_;
};

enum class Kind { kOne, kTwo };
template <class T>
T Largest(const std::vector<T>& values);
// Limits.
inline constexpr int kMost = 3;
inline constexpr int kLeast = 1;
constexpr int kTable[] = {1, 2};

class Later;
using Queues = std::vector<Queue>;

namespace {
int Local();
}
}  // namespace wideload
"""


class Contracts(unittest.TestCase):
    def test_counts_what_others_can_name(self):
        found = {f"{d.kind} {d.name}": d.has_contract for d in contracts.declarations(HEADER)}
        self.assertEqual(found, {
            "type Queue": True, "function Push": False, "function Pop": True, "type Closed": False, "function Closed": False,
            "function Add": True, "function Other": True, "type Kind": False, "function Largest": False,
            "constant kMost": True, "constant kLeast": True, "constant kTable": True, "alias Queues": False})

    def test_the_opening_comment_is_that_of_the_type_the_header_is_named_after(self):
        found = {d.name: d.has_contract for d in contracts.declarations(HEADER, "closed") if d.kind == "type"}
        self.assertTrue(found["Closed"])
        self.assertFalse(found["Kind"])
        self.assertTrue(next(d for d in contracts.declarations("// A.\nstruct B { int c; };\n")).has_contract)

    def run_tool(self, root, *options):
        done = subprocess.run([sys.executable, "-B", TOOL, root, *options], capture_output=True, text=True)
        return done.returncode, done.stdout

    def test_the_share_may_only_rise(self):
        with tempfile.TemporaryDirectory() as root:
            header = pathlib.Path(root, "src/base/a.h")
            share = pathlib.Path(root, contracts.SHARE_FILE)
            for path in (header, share):
                path.parent.mkdir(parents=True)
            header.write_text("// A.\n\n// Says it.\nvoid A();\n\nvoid B();\n")
            share.write_text("50.0\n")
            self.assertEqual(self.run_tool(root)[0], 0)
            share.write_text("50.1\n")
            code, text = self.run_tool(root, "--list")
            self.assertEqual(code, 1)
            self.assertIn("src/base/a.h:6: function B", text)
            self.run_tool(root, "--update")
            self.assertEqual(share.read_text(), "50.1\n")
            header.write_text("// A.\n\n// Says it.\nvoid A();\n")
            self.run_tool(root, "--update")
            self.assertEqual(share.read_text(), "100.0\n")


if __name__ == "__main__":
    unittest.main()
