"""Tests of ./dev that need no build: what it says of itself, and that it runs from anywhere."""
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERBS = ["demo", "build", "test", "test-cluster", "bench", "format", "tidy", "fuzz", "soak", "clean", "help"]


def dev(*arguments, cwd="/"):
    return subprocess.run([ROOT / "dev", *arguments], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


class Dev(unittest.TestCase):
    def test_names_every_verb_when_asked_for_help_from_another_folder(self):
        answer = dev("help")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertEqual([verb for verb in VERBS if not re.search(rf"^  {verb}\b", answer.stdout, re.M)], [])

    def test_refuses_an_unknown_verb_with_code_2(self):
        answer = dev("tests")
        self.assertEqual(answer.returncode, 2)
        self.assertIn("there is no verb 'tests'", answer.stderr)

    def test_refuses_an_unknown_fuzzer_by_name(self):
        answer = dev("fuzz", "no_such_parser")
        self.assertEqual(answer.returncode, 2)
        self.assertIn("there is no fuzzer 'no_such_parser'", answer.stderr)

    def test_is_the_first_command_of_the_readme(self):
        head = (ROOT / "README.md").read_text().splitlines()[:20]
        self.assertIn("./dev demo", "\n".join(head))

    def test_pages_link_only_to_files_that_exist(self):
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/*/README.md")]:
            for link in re.findall(r"\]\((?!\w+:|#)([^)#]+)", page.read_text()):
                self.assertTrue((page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}")


class ContinuousIntegration(unittest.TestCase):
    def test_scripts_are_valid_bash(self):
        for script in ("dev", ".ci/run"):
            checked = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
            self.assertEqual(checked.returncode, 0, checked.stderr)


if __name__ == "__main__":
    unittest.main()
