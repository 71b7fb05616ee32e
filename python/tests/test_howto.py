import contextlib
import io
import os
import pathlib
import re
import tempfile
import unittest

import golden


class HowTo(unittest.TestCase):
    def test_examples_of_the_page_run(self):
        page = (golden.SOURCE / "docs/howto/eplb-from-python.md").read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
        self.assertGreaterEqual(len(blocks), 6)
        names, output, home = {}, io.StringIO(), os.getcwd()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(output):
            os.chdir(folder)
            try:
                for block in blocks:
                    exec(compile(block, "eplb-from-python.md", "exec"), names)
                lines = pathlib.Path("eplb.yaml").read_text().splitlines()
            finally:
                os.chdir(home)
        self.assertEqual(lines[:3], ["num_slots: 72", "layer_updates_per_iter: 0", "initial_global_assignments:"])
        self.assertRegex(lines[3], r"^  3: \[\d+(, \d+){71}\]$")
        self.assertIn("scenario", output.getvalue())


if __name__ == "__main__":
    unittest.main()
