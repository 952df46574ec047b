"""Measure how long the table of a large custom data set takes, and its memory: python tests/million_rows.py [ROWS]

Makes a CSV and that many empty files in a temporary folder (TMPDIR chooses where; a million files need a few GB of disk
or 1 GB of /dev/shm). Everything before the first image is decoded is measured, in a process of its own.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

CHOICES = {"gender": ("male", "female"), "race": ("White", "Black", "Asian", "Indian")}


def make_files(root: Path, count: int) -> None:
    """Write labels.csv with full paths, ids.csv with names without folder and suffix, and the empty files."""
    draw = random.Random(0)
    with (root / "labels.csv").open("w") as labels, (root / "ids.csv").open("w") as ids:
        for file, name in ((labels, "path"), (ids, "image_id")):
            file.write(f"{name},age,gender,race,patient,score\n")
        for index in range(count):
            folder = f"images/{index // 1000:04}"
            if index % 1000 == 0:
                (root / folder).mkdir(parents=True)
            (root / folder / f"img_{index:07}.jpg").touch()
            values = [draw.randint(1, 90), *map(draw.choice, CHOICES.values()), f"p{index // 3:06}", draw.random()]
            line = ",".join(map(str, values))
            labels.write(f"{folder}/img_{index:07}.jpg,{line}\n")
            ids.write(f"img_{index:07},{line}\n")


def measure(root: Path, labels: str) -> None:
    """Prepare the table, and print the time and the peak memory of this process."""
    from fairdd.datasets import DatasetRequest
    from fairdd.datasets.custom.folder import prepare_table

    start, start_cpu = time.perf_counter(), time.process_time()
    request = DatasetRequest("Folder", root, labels=labels, target_attr="age:20,40", protected_attr="gender,race")
    table, _ = prepare_table(request)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{labels}: {len(table):,} rows in {time.perf_counter() - start:.1f} s "
          f"({time.process_time() - start_cpu:.1f} s of CPU), {peak:.2f} GiB")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder), int(sys.argv[1]) if len(sys.argv) == 2 else 1_000_000)
            for name in ("labels.csv", "ids.csv"):
                subprocess.run([sys.executable, __file__, folder, name], check=True)
