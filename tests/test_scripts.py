"""The shell scripts really launch what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairdd.flags import parse
from networks import find_network

ROOT = Path(__file__).parent.parent
QUICK = ["--Iteration", "1", "--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10",
         "--model", "ConvNetD1W32", "--im_size", "8"]


def script(name, *flags):
    """Run a script with this Python as the active one. -> the finished process"""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHON": sys.executable}
    command = ["bash", f"scripts/{name}.sh", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["main_DM", "main_DC"])
def test_a_script_runs_both_controls_vanilla_and_fairdd_and_ends_with_their_table(tmp_path, name):
    done = script(name, *QUICK, "--save_path", str(tmp_path))
    assert done.returncode == 0, done.stderr
    method = name[-2:]
    rows = ["random real images", "group-balanced real images", method, f"{method} + FairDD"]
    table = done.stdout[done.stdout.rindex("networks\n"):]
    assert [row for row in rows if f"\n{row}  " in table] == rows
    for folder in ("random", "balanced", "vanilla", "fairdd"):
        assert (tmp_path / folder / "results.json").exists() and f"{tmp_path / folder}/experiment0" in table


def test_a_call_that_chooses_its_alignment_is_one_run(tmp_path):
    done = script("main_DM", *QUICK, "--FairDD", "--save_path", str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "results.json").exists() and len(list(tmp_path.iterdir())) == 1


def test_a_failing_run_makes_the_script_fail(tmp_path):
    paths = ["--data_path", str(tmp_path), "--save_path", str(tmp_path / "run")]
    done = script("main_DM", *QUICK, "--dataset", "CelebA", *paths)
    assert done.returncode == 2 and "CelebA" in done.stderr and "Traceback" not in done.stderr


def test_a_python_without_the_packages_is_seen_to_lack_them(tmp_path):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("torch>=2.4\nno-such-package>=1.0  # why\nnumpy>=99\n")
    command = [sys.executable, "scripts/has_requirements.py"]
    lacking = subprocess.run([*command, wanted], cwd=ROOT, capture_output=True, text=True)
    assert lacking.returncode == 1 and "no-such-package, numpy" in lacking.stderr
    assert subprocess.run([*command, "requirements.txt"], cwd=ROOT).returncode == 0


def listed():
    """name -> its commands, each in words, as reproduce.sh lists them."""
    found = {}
    for line in script("reproduce", "--list").stdout.splitlines():
        if line.startswith(" "):
            found[name].append(line.split())        # noqa: F821  a name stands above its commands
        else:
            name = line
            found[name] = []
    return found


def test_every_listed_experiment_is_one_that_the_entries_take():
    found = listed()
    assert len(found) == 8 * (3 * 3 + 2)
    for commands in found.values():
        for program, what, *flags in commands:
            if program == "bash":
                methods = ["DM"] if what == "scripts/main_DM.sh" else ["DC", "DSA"]
                args = parse(methods, find_network, ["S"], flags)
                assert args.Iteration in (20000, 1000) and args.ipc in (10, 50, 100) and args.num_eval == 10
            else:
                assert (what, flags[0]) == ("-m", "fairdd.evaluate")


def test_an_experiment_that_is_not_listed_is_refused():
    done = script("reproduce", "CelebA-DM-ipc11")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "--list" in done.stderr


def test_an_experiment_runs_with_the_flags_passed_on(tmp_path):
    done = script("reproduce", "CelebA-DM-ipc10", "--data_path", str(tmp_path))
    assert done.returncode == 2 and str(tmp_path / "CelebA") in done.stderr
