"""The measurement of time to quality: its table, its resumption, its held-out images and its reference loop."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main_DM
from fairdd.datasets.colored import PALETTE

ROOT = Path(__file__).parent.parent
TIME_LIMIT = 240        # seconds of the script


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import time_to_quality

    return time_to_quality


def measure(folder, *flags):
    """Run the script at small sizes; return the finished process."""
    command = [sys.executable, "scripts/time_to_quality.py", "--quick", "--out", str(folder), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)


def cells(table):
    """Return the rows of a Markdown table, the head first."""
    lines = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    return [line.strip("| ").split(" | ") for line in lines]


def run(seconds, reached=True):
    """Return the record of a row and seed that has ended."""
    metrics = dict(accuracy=80.0, DEO_A=20.0)
    return dict(evaluations=[dict(iteration=0, seconds=0.0, **metrics), dict(iteration=5, seconds=seconds, **metrics)],
                test=metrics, reached=reached)


def test_the_quick_run_writes_its_table_and_resumes_without_repeating(tmp_path, script):
    bounds = "--accuracy", "0"              # reached by the initial images
    done = measure(tmp_path, *bounds, "--tables", str(tmp_path / "tables"))
    assert done.returncode == 0, done.stderr
    table, path = tmp_path / "tables" / "time_to_quality.md", tmp_path / "time_to_quality.json"
    head, *rows = cells(table.read_text())
    assert head == script.HEAD
    assert [row[:2] for row in rows] == [[name, "1 of 1"] for name in script.ROWS] and rows[0][4] == "initial images"
    assert f"--accuracy 0 --DEO_A 100 --max_minutes 0.02 --quick --out {tmp_path}" in table.read_text()

    result = json.loads(path.read_text())
    runs = [(runs["0"]["reached"], [point["iteration"] for point in runs["0"]["evaluations"]])
            for runs in result["rows"].values()]
    assert runs == [(True, [0])] * len(script.ROWS)
    del result["rows"]["DM + FairDD"]["0"]["reached"]           # as if it had been killed
    path.write_text(json.dumps(result))
    again = measure(tmp_path, *bounds)
    repeated = json.loads(path.read_text())
    assert again.stdout.count("seed 0 | DM + FairDD | ") == again.stdout.count("\n") == 1
    assert repeated["rows"].pop("DM + FairDD")["0"]["reached"]
    assert all(repeated["rows"][row] == result["rows"][row] for row in repeated["rows"])
    other = measure(tmp_path, "--accuracy", "1")
    assert other.returncode == 2 and "another setting" in other.stderr


def test_a_row_ends_when_its_time_is_spent(tmp_path, script, monkeypatch):
    monkeypatch.setattr(script, "ROWS", {row: script.ROWS[row] for row in (script.REFERENCE, "DM + FairDD")})
    script.main(["--quick", "--accuracy", "101", "--max_minutes", "0.0001", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "time_to_quality.json").read_text())
    for runs in result["rows"].values():
        assert runs["0"]["reached"] is False and runs["0"]["evaluations"][-1]["seconds"] >= 0.006


def test_ratios_are_to_the_reference_on_the_same_seeds(script):
    ended = {"0": run(2.0), "1": run(3.0)}
    assert script.ratio([run(10.0), run(20.0)], ended) == "6"
    assert script.ratio([run(10.0), run(20.0, reached=False)], ended) == "> 6"
    assert script.ratio([run(10.0), {}], ended) == script.ratio([run(10.0)], {"0": run(2.0, reached=False)}) == "–"


def test_the_table_has_the_rows_that_have_ended(script):
    rows = {name: {} for name in script.ROWS}
    rows[script.REFERENCE] = {"0": run(10.0), "1": run(30.0, reached=False)}
    rows["DM + FairDD"] = {"0": run(4.0), "1": {"evaluations": []}}
    _, reference, fairdd = cells(script.make_table(rows))
    assert reference == [script.REFERENCE, "1 of 2", "10 to 30 (20)", "5 to 5", "–", "80.0, 20.0", "80.0, 20.0"]
    assert fairdd == ["DM + FairDD", "1 of 1", "4 to 4 (4)", "5 to 5", "2.5", "80.0, 20.0", "80.0, 20.0"]


def test_held_out_images_are_balanced_and_not_among_the_training_images(script):
    command = script.commands(script.parse(["--quick", "--out", "."]))[script.REFERENCE]
    data, complete = script.held_out_data(command, "."), script.load_data(main_DM.parse(command.split()[1:])[1])
    counts = data.val.counts()
    assert len(data.val) + len(data.train) == len(complete.train) and counts.max() - counts[counts > 0].min() <= 2
    shapes = [{image.amax(0).numpy().tobytes() for image in images} for images in
              (data.train.images, data.val.images, complete.train.images)]
    assert shapes[0] | shapes[1] == shapes[2]
    for image, group in zip(data.val.images[:20], data.val.groups[:20].tolist(), strict=True):
        assert torch.equal(image.flatten(1).amax(1), torch.from_numpy(PALETTE[group]).byte())


def test_the_reference_implementation_makes_the_same_images(script):
    commands = script.commands(script.parse(["--quick", "--out", "."]))
    data = script.held_out_data(commands[script.REFERENCE], ".")
    reference, fairdd, initial = (script.Distillation(row, commands[row], 0, data)
                                for row in (script.REFERENCE, "DM + FairDD", "DM + FairDD"))
    assert [distillation.context.method.update for distillation in (reference, fairdd)] == [
        script.reference_dm_update, main_DM.update]
    for distillation in (reference, fairdd):
        distillation.advance(3, float("inf"))
    assert torch.allclose(reference.syn.images, fairdd.syn.images, atol=1e-4)
    assert not torch.allclose(initial.syn.images, fairdd.syn.images, atol=1e-2)
