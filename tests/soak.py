"""The kill test for as long as you like: `python tests/soak.py 100` kills a DM and a DC run 100 times each."""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import conftest  # noqa: F401  one thread, as in the tests
from test_resume import ENTRIES, final_files, kill_repeatedly, run_to_end


def main(kills: int, seed: int = 0) -> None:
    for method in ENTRIES:
        with tempfile.TemporaryDirectory() as root:
            began = time.monotonic()
            assert run_to_end(method, Path(root) / "reference") == 0
            expected, seconds = final_files(Path(root) / "reference"), time.monotonic() - began
            kill_repeatedly(method, Path(root) / "run", kills, seed, seconds / 2, expected)
            print(f"{method}: killed {kills} times in {time.monotonic() - began:.0f} s, the same bytes as without")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
