"""The kill test for as long as you like: `python tests/soak.py 100` kills a DM and a DC run 100 times each."""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import conftest  # noqa: F401  one thread, as in the tests
from test_resume import ENTRIES, kill_again_and_again, outcome, whole


def main(kills, seed=0):
    for method in ENTRIES:
        with tempfile.TemporaryDirectory() as root:
            began = time.monotonic()
            assert whole(method, Path(root) / "reference") == 0
            expected, seconds = outcome(Path(root) / "reference"), time.monotonic() - began
            kill_again_and_again(method, Path(root) / "run", kills, seed, seconds / 2, expected)
            print(f"{method}: killed {kills} times in {time.monotonic() - began:.0f} s, the same bytes as without")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
