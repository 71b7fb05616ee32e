#!/usr/bin/env python3
"""Runs the program as its users do. Usage: cli_test.py [unittest options]; WIDELOAD_PROGRAM names the program."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from bad_input_test import *  # noqa: E402,F401,F403
from good_runs_test import *  # noqa: E402,F401,F403
from interrupt_test import *  # noqa: E402,F401,F403

if __name__ == "__main__":
    unittest.main()
