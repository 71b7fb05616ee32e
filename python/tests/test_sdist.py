"""The source distribution holds everything that the module is built from."""
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(os.environ.get("WIDELOAD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))


class SourceDistribution(unittest.TestCase):
    def test_holds_the_modules_that_the_extension_links(self):
        try:
            import scikit_build_core  # noqa: F401
        except ImportError as error:
            self.skipTest(f"the build tools are not here: {error}")
        with tempfile.TemporaryDirectory() as folder:
            code = f"import build_backend; print(build_backend.build_sdist({folder!r}))"
            done = subprocess.run([sys.executable, "-B", "-c", code], cwd=ROOT / "python", capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            with tarfile.open(pathlib.Path(folder, done.stdout.split()[-1])) as archive:
                names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        self.assertFalse((ROOT / "python/source").exists())
        self.assertLessEqual({"LICENSE", "build_backend.py", "source/cmake/WideloadLibrary.cmake"}, names)
        for module in ("base", "parallel", "eplb"):
            lists = (ROOT / "src" / module / "CMakeLists.txt").read_text()
            for source in re.findall(r"[\w/]+\.cc\b", lists):
                self.assertIn(f"source/src/{module}/{source}", names)


if __name__ == "__main__":
    unittest.main()
