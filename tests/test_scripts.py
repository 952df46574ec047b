"""The shell scripts run the commands they promise. Most tests record the commands instead of running them."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

import main_DC
import main_DM
from fairdd import evaluate
from networks import get_eval_pool, network_factory

ROOT = Path(__file__).parent.parent
QUICK = ["--Iteration", "1", "--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10",
         "--model", "ConvNetD1W32", "--im_size", "8"]
CONTROLS = [["--init", "real", "--Iteration", "0"], ["--init", "balanced", "--Iteration", "0", "--quiet"],
            ["--align", "vanilla", "--quiet"], ["--FairDD", "--quiet"]]
RUNS = ["random", "balanced", "vanilla", "fairdd"]
TIME_LIMIT = 240        # seconds of a script
RECORDER = """#!/usr/bin/env bash
# a Python that records what it was asked to run; this test process answers -c, the question for a folder
case $1 in
  scripts/has_requirements.py) exit 0 ;;
  -c) printf '%s\\0' "$@" > question; { read -r status; cat; } < answer; exit "$status" ;;
esac
printf '%q ' "$@" >> record; echo >> record
if [[ " $* " == *" $FAIL "* ]]; then exit 3; fi
"""


def script(name, *flags, **environment):
    """Run a script with this Python as the active one; return the finished process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHON": sys.executable, **environment}
    command = ["bash", f"scripts/{name}.sh", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)


@pytest.fixture
def commands_of(tmp_path):
    """A function that runs a script with a recording Python and returns its commands, as lists of command_line."""
    recorder, record, question, answer = (tmp_path / name for name in ("python", "record", "question", "answer"))
    recorder.write_text(RECORDER.replace("question", str(question)).replace("answer", str(answer))
                        .replace("record;", f"{record};").replace("record\n", f"{record}\n"))
    recorder.chmod(0o755)
    os.mkfifo(question)
    os.mkfifo(answer)
    threading.Thread(target=answer_questions, args=(question, answer), daemon=True).start()

    def commands(name, *flags, status=0, fail="nothing"):
        record.write_text("")
        done = script(name, *flags, PYTHON=str(recorder), FAIL=fail)
        assert done.returncode == status, done.stderr
        return [shlex.split(line) for line in record.read_text().splitlines()]

    yield commands
    question.write_text("")         # ends the thread


def answer_questions(question, answer):
    """Run code and arguments (of python -c) in this process, until there are none; answer with status and output."""
    while command_line := question.read_text().split("\0")[:-1]:
        output, status = io.StringIO(), 0
        with contextlib.redirect_stdout(output), mock.patch.object(sys, "argv", command_line[:1] + command_line[2:]):
            try:
                exec(command_line[1], {})
            except SystemExit as stop:
                status = stop.code
            except Exception as error:      # a script must never wait for an answer
                status = repr(error)
        answer.write_text(f"{status}\n{output.getvalue()}")


def test_a_script_runs_both_controls_vanilla_and_fairdd_and_ends_with_their_table(tmp_path):
    done = script("main_DM", *QUICK, "--save_path", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = ["random real images", "group-balanced real images", "DM", "DM + FairDD"]
    table = done.stdout[done.stdout.rindex("networks\n"):]
    assert [row for row in rows if f"\n{row}  " in table] == rows
    for folder in RUNS:
        assert (tmp_path / folder / "results.json").exists() and f"{tmp_path / folder}/experiment0" in table
    assert str(tmp_path / "report" / "report.html") in table and (tmp_path / "report" / "report.html").exists()
    for printed_once in (" training images  red", "smallest cell", "flags: method DM"):
        assert done.stdout.count(printed_once) == 1
    titles = [line for line in done.stdout.splitlines() if line.startswith("== ")]
    assert [title.partition(":")[0] for title in titles] == [f"== {number} of 4" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(("name", "flags"), [
    ("main_DM", []), ("main_DC", ["--method", "DSA"]), ("main_DM", ["--seed=1", "--num_exp", "2", "--init", "noise"])])
def test_the_four_runs_take_the_users_flags_and_a_folder_named_by_them(commands_of, name, flags):
    *runs, table, page = commands_of(name, *flags)
    entry = {"main_DM": main_DM, "main_DC": main_DC}[name]
    folder = Path(runs[0][runs[0].index("--save_path") + 1]).parent
    for run, subfolder, control in zip(runs, RUNS, CONTROLS, strict=True):
        user = ["--ipc", "10", "--num_exp", "1", *flags]
        assert run == [f"{name}.py", *user, "--save_path", f"{folder}/{subfolder}", *control]
        assert entry.parse(run[1:])[1].save_path == f"{folder}/{subfolder}"
    assert table == ["-m", "fairdd.report", *(f"{folder}/{run}" for run in RUNS)]
    assert page == [*table, "--out", f"{folder}/report", "--overwrite"]
    assert str(folder).startswith("results/") and entry.parse(flags)[1].model in folder.name


def test_the_folder_of_a_script_depends_on_what_changes_results_and_on_nothing_else(commands_of, tmp_path):
    def folder(*flags):
        return commands_of("main_DM", *flags)[-1][-2].removesuffix("/report")

    plain = folder()
    assert folder("--restart", "--device", "cpu", "--save_every", "7", "--quiet", "--ipc=10") == plain
    assert len({plain, folder("--seed", "1"), folder("--lr_img=3"), folder("--ipc", "20")}) == 4
    assert folder("--save_path", "a b", f"--save_path={tmp_path}/an other") == f"{tmp_path}/an other"
    assert folder("--save_path=~/out") == str(Path("~/out").expanduser())


@pytest.mark.parametrize("flags", [["--FairDD"], ["--align", "vanilla"], ["--align=barycenter"], ["--help"], ["-h"]])
def test_a_call_that_chooses_its_alignment_or_asks_for_help_is_one_command(commands_of, flags):
    assert commands_of("main_DM", *flags) == [["main_DM.py", "--ipc", "10", "--num_exp", "1", *flags]]


def test_a_failing_run_ends_the_script_with_its_status(commands_of):
    assert len(commands_of("main_DM", fail="--align vanilla", status=3)) == 3
    assert commands_of("reproduce", "CelebA-networks", fail="--init balanced", status=3)[1][-1] == "--quiet"


def test_a_wrong_flag_is_one_line(commands_of):
    assert not commands_of("main_DC", "--ipc", "none", status=2)
    done = script("main_DC", "--ipc", "none")
    assert done.stderr.startswith("error: argument --ipc: 'none'") and done.stderr.count("\n") == 1


def test_a_python_without_the_packages_is_recognized(tmp_path):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("torch>=2.4\nno-such-package>=1.0  # why\nnumpy>=99\n")
    command = [sys.executable, "scripts/has_requirements.py"]
    lacking = subprocess.run([*command, wanted], cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert lacking.returncode == 1 and "no-such-package, numpy" in lacking.stderr and "torch" not in lacking.stderr
    assert subprocess.run([*command, "requirements.txt"], cwd=ROOT, timeout=TIME_LIMIT).returncode == 0


def listed():
    """Return the commands of every experiment that reproduce.sh lists, as lists of command_line, by its name."""
    experiments = {}
    for line in script("reproduce", "--list").stdout.splitlines():
        if line.startswith(" "):
            experiments[name].append(line.split())      # noqa: F821  a name stands above its commands
        else:
            name = line
            experiments[name] = []
    return experiments


def test_every_listed_experiment_has_the_papers_setting():
    experiments = listed()
    assert len(experiments) == 8 * (3 * 3 + 2)
    for name, commands in experiments.items():
        dataset, experiment = name.split("-", 1)
        for program, target, *flags in commands:
            if program == "bash":
                method, ipc = ("DM", 50) if experiment == "networks" else experiment.split("-ipc")
                assert target == f"scripts/main_{'DM' if method == 'DM' else 'DC'}.sh"
                args = (main_DM if method == "DM" else main_DC).parse(flags)[1]
                assert (args.method, args.dataset, args.ipc) == (method, dataset, int(ipc))
                assert (args.num_eval, args.Iteration) == (10, 20000 if method == "DM" else 1000)
            else:
                assert (program, target, flags[0]) == ("python", "-m", "fairdd.evaluate")
        assert len(commands) == (3 if experiment == "networks" else 1)


def test_an_unknown_experiment_is_refused():
    done = script("reproduce", "CelebA-DM-ipc11")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "--list" in done.stderr


@pytest.mark.parametrize("name", ["CelebA-DM-ipc10", "UTKface-DSA-ipc50", "BFFHQ-DC-ipc100"])
def test_an_experiment_runs_its_comparison_with_the_flags_passed_on(commands_of, name):
    dataset, method, ipc = name.split("-")
    folders = []
    for flags in ([], ["--seed", "1"], ["--data_path", "some where", "--device", "cpu"]):
        *runs, _, _ = commands_of("reproduce", name, *flags)
        for run, control in zip(runs, CONTROLS, strict=True):
            args = (main_DM if method == "DM" else main_DC).parse(run[1:])[1]
            assert (args.method, args.dataset, f"ipc{args.ipc}") == (method, dataset, ipc)
            assert f" {shlex.join([*flags, '--save_path'])} " in shlex.join(run) and run[-len(control):] == control
        folders.append(Path(args.save_path).parent)
    assert folders[0] == folders[2] != folders[1]


def test_the_networks_of_an_experiment_are_trained_on_the_sets_of_its_comparison(commands_of):
    for flags in ([], ["--seed", "1"], ["--save_path", "my folder"]):
        *runs, _, _, vanilla, fairdd = commands_of("reproduce", "CelebA-networks", *flags)
        saved = [run[len(run) - 1 - run[::-1].index("--save_path") + 1] for run in runs]
        networks = ["--model", "ConvNet", "AlexNet", "VGG11", "ResNet18"]
        assert [vanilla, fairdd] == [["-m", "fairdd.evaluate", folder, *networks] for folder in saved[2:]]


def test_the_whole_real_set_has_a_folder_for_each_seed(commands_of):
    folders = []
    for flags in ([], ["--seed", "1"]):
        [[_, module, *argv]] = commands_of("reproduce", "CelebA-whole", *flags)
        args = evaluate.parse_flags(network_factory, get_eval_pool, argv)
        assert (module, args.data, args.dataset, args.epoch_eval_train) == ("fairdd.evaluate", "real", "CelebA", 30)
        folders.append(args.save_path)
    assert folders[0] != folders[1]


def test_a_task_of_a_slurm_array_runs_its_experiment_in_its_folder(commands_of, monkeypatch):
    for task, dataset in (("0", "CelebA"), ("1", "UTKface")):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        expected = commands_of("reproduce", f"{dataset}-DM-ipc10", "--quiet")
        assert commands_of("slurm_array", "CelebA-DM-ipc10", "UTKface-DM-ipc10", "--", "--quiet") == expected


def test_a_slurm_array_of_one_experiment_has_a_seed_and_a_folder_for_each_task(commands_of, monkeypatch):
    folders = set()
    for task in ("0", "7"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        first, *_ = commands_of("slurm_array", "CelebA-DM-ipc10")
        assert first == commands_of("reproduce", "CelebA-DM-ipc10", "--seed", task)[0]
        folders.add(first[first.index("--save_path") + 1])
    assert len(folders) == 2


@pytest.mark.parametrize("names", [[], ["CelebA-DM-ipc10", "UTKface-DM-ipc10"]])
def test_a_slurm_task_without_an_experiment_is_refused(names):
    done = script("slurm_array", *names, SLURM_ARRAY_TASK_ID="2")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
