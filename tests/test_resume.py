"""Interruptions lose nothing and change nothing: SIGKILL at any moment, a signal, a full disk, a damaged checkpoint."""

import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import time
from dataclasses import replace
from unittest import mock

import pytest
import sklearn.datasets  # noqa: F401  a run imports these late: imported here, a forked one has them at once
import torch
import torch._dynamo
import torchvision.utils  # noqa: F401
from PIL import Image

import main_DC
import main_DM
from fairdd.core.errors import Interrupted, UserError
from fairdd.run import checkpoint
from fairdd.run.folder import exclusive_lock

ENTRIES = {"DM": main_DM.main, "DC": main_DC.main, "IDC": main_DC.main, "DREAM": main_DC.main, "CAFE": main_DM.main,
           "DM kmeans": main_DM.main, "DC dbscan": main_DC.main}       # a method, and the source of its groups
FLAGS = {"IDC": ["--pixel_steps", "2", "--n_data", "10", "--dsa_strategy", "color_crop_cutout"],
         "DREAM": ["--pixel_steps", "3", "--n_data", "10", "--cluster_every", "2"],
         "CAFE": ["--max_steps", "2", "--max_epochs", "2"],
         "DM kmeans": ["--groups", "kmeans:3", "--group_features", "random", "--group_noise", "0.1"],
         "DC dbscan": ["--groups", "dbscan", "--batch_real", "40"]}
SMALL = ["--num_eval", "2", "--epoch_eval_train", "2", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--num_exp", "2", "--Iteration", "6", "--eval_every", "3", "--save_every", "1", "--FairDD"]
TIME_LIMIT = 120        # seconds, of any process or wait


def launch(method, folder, *flags, file_limit=None):
    """Start the entry in a process of its own, forked, so that it starts at once. file_limit: bytes per file."""

    def work():
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(stderr_of(folder), "a", buffering=1)  # noqa: SIM115
        ENTRIES[method]([*SMALL, "--method", method.split()[0], *FLAGS.get(method, []), "--save_path", str(folder),
                         *flags])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def run_to_end(method, folder, *flags, **limits):
    """Run the entry in a process of its own; return its exit status."""
    return exit_status(launch(method, folder, *flags, **limits))


def exit_status(process):
    process.join(TIME_LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"a process did not end within {TIME_LIMIT} s")
    return process.exitcode


def wait_for(process, *paths):
    """Return when all paths exist; fail if the process ends before, or after the time limit."""
    deadline = time.monotonic() + TIME_LIMIT
    while not all(path.exists() for path in paths):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


def stderr_of(folder):
    """Return the file to which the processes of a run write their standard error."""
    return folder.with_name(folder.name + ".err")


def final_files(folder):
    """Return the bytes that must not depend on interruptions, by file name."""
    names = ["synthetic.pt", "results.json", "evaluations.jsonl", "metrics_per_network.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def kill_repeatedly(method, folder, kills, seed, longest, expected):
    """Kill a run this many times, each at a random moment up to longest seconds after its launch.

    A run that ends before it is killed is compared and begun anew; so is the last one, which is not killed.
    """
    moments, killed = random.Random(seed), 0
    while killed < kills:
        process = launch(method, folder)
        process.join(moments.uniform(0, longest))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join(TIME_LIMIT)
        if (folder / "results.json").exists():
            assert final_files(folder) == expected
            shutil.rmtree(folder)
    assert run_to_end(method, folder) == 0 and final_files(folder) == expected


@pytest.fixture(scope="module", params=ENTRIES)
def reference(request, tmp_path_factory):
    """A method, the files of an uninterrupted run of it, and the seconds it took."""
    folder = tmp_path_factory.mktemp("reference") / request.param
    began = time.monotonic()
    assert run_to_end(request.param, folder) == 0
    return request.param, final_files(folder), time.monotonic() - began


def test_a_run_killed_repeatedly_ends_with_the_same_bytes(reference, tmp_path):
    method, expected, seconds = reference
    kill_repeatedly(method, tmp_path / "run", 10, 0, seconds / 2, expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_sets_message_and_exit_status(reference, tmp_path, number):
    method, expected, _ = reference
    folder = tmp_path / "run"
    process = launch(method, folder)
    wait_for(process, folder / checkpoint.NAMES[0])
    os.kill(process.pid, number)
    assert exit_status(process) == 128 + number
    message = f"interrupted by {signal.Signals(number).name}; re-run the same command to resume\n"
    assert stderr_of(folder).read_text() == message and (folder / checkpoint.NAMES[0]).exists()
    assert run_to_end(method, folder) == 0 and final_files(folder) == expected
    log = (folder / "log.txt").read_text()
    assert "resuming at iteration" in log
    assert len((folder / "processes.jsonl").read_text().splitlines()) == 2


def test_a_second_process_is_refused_with_the_process_and_host_of_the_first(tmp_path):
    with exclusive_lock(tmp_path):
        assert run_to_end("DM", tmp_path) == 2
    assert f"in use by process {os.getpid()} on {socket.gethostname()}" in stderr_of(tmp_path).read_text()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    process = launch("DM", tmp_path)
    wait_for(process, tmp_path / checkpoint.NAMES[0])
    process.kill()
    process.join(TIME_LIMIT)
    with exclusive_lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".owner").read_text()


def test_the_lock_is_released_at_the_end_of_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(Interrupted), exclusive_lock(tmp_path):
            with pytest.raises(UserError, match="is in use by process"), exclusive_lock(tmp_path):
                pass
            raise Interrupted(15)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(reference, tmp_path, damage):
    method, expected, _ = reference
    folder = tmp_path / "run"
    kill_after_two_checkpoints(method, folder)
    newest = folder / checkpoint.NAMES[0]
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    assert run_to_end(method, folder) == 0 and final_files(folder) == expected
    log = (folder / "log.txt").read_text()
    assert f"{newest} is corrupt or not a FairDD checkpoint" in log and "resuming at iteration" in log


def test_without_an_intact_checkpoint_the_run_begins_anew(reference, tmp_path):
    method, expected, _ = reference
    folder = tmp_path / "run"
    kill_after_two_checkpoints(method, folder)
    for name in checkpoint.NAMES:
        (folder / name).write_bytes(b"damaged")
    assert run_to_end(method, folder) == 0 and final_files(folder) == expected
    assert "resuming" not in (folder / "log.txt").read_text()


def test_a_full_disk_gives_a_message_and_leaves_the_last_checkpoint_intact(reference, tmp_path):
    method, expected, _ = reference
    folder = tmp_path / "run"
    assert run_to_end(method, folder, file_limit=20_000) == 2   # enough for checkpoints, not for the synthetic sets
    message = stderr_of(folder).read_text()
    assert "cannot be written" in message and "files saved earlier are intact" in message
    assert run_to_end(method, folder) == 0 and final_files(folder) == expected


def kill_after_two_checkpoints(method, folder):
    """Leave a run that was killed when both of its checkpoints existed."""
    process = launch(method, folder)
    wait_for(process, *(folder / name for name in checkpoint.NAMES))
    process.kill()
    process.join(TIME_LIMIT)


CHANGES = {     # of the files, what the message names
    "an image is replaced": (lambda root: save_picture(root / "30_0_0_1.jpg", 9), "training images|test images"),
    "an image is added": (lambda root: save_picture(root / "30_0_0_9.jpg", 9), "training images, training labels"),
    "a label is corrected": (lambda root: (root / "30_0_0_1.jpg").rename(root / "60_0_0_1.jpg"), "labels"),
    "a group is corrected": (lambda root: (root / "30_0_0_1.jpg").rename(root / "30_0_2_1.jpg"), "groups"),
    "an image is removed": (lambda root: (root / "30_0_0_1.jpg").unlink(), "images"),
}


@pytest.fixture
def faces(tmp_path):
    """A small UTKFace: its folder and a function that runs DM on it in this process, up to an interruption if given."""
    for age, race, number in itertools.product((10, 30, 60), range(4), range(4)):
        save_picture(tmp_path / "UTKFace" / f"{age}_0_{race}_{number}.jpg", age + 10 * race + number)

    def run(interrupt_at=None):
        def update(context, syn, *key):
            if key[-1] == interrupt_at:
                raise Interrupted(15)
            return main_DM.update(context, syn, *key)

        with mock.patch.object(main_DM, "METHOD", replace(main_DM.METHOD, update=update)):
            main_DM.main([*SMALL, "--dataset", "UTKface", "--data_path", str(tmp_path), "--num_exp", "1",
                          "--save_path", str(tmp_path / "run")])

    return tmp_path / "UTKFace", run


def save_picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, 0, 255 - level)).save(path)


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_not_continued_with_other_data(faces, capsys, change, is_finished):
    folder, run = faces
    if is_finished:
        run()
    else:
        with pytest.raises(SystemExit):
            run(interrupt_at=2)
    before = {path: path.read_bytes() for path in (folder.parent / "run").iterdir() if path.name != ".owner"}
    CHANGES[change][0](folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run()
    message = capsys.readouterr().err
    assert stop.value.code == 2 and re.search(f"these have changed: .*({CHANGES[change][1]})", message)
    assert "--restart" in message and before == {path: path.read_bytes() for path in before}


def test_a_run_is_continued_with_the_same_data_wherever_they_are(faces, capsys):
    folder, run = faces
    with pytest.raises(SystemExit):
        run(interrupt_at=2)
    for path in folder.iterdir():
        os.utime(path)                  # read again, not from the cache
    run()
    run()
    assert "resuming at iteration 2" in capsys.readouterr().out
    digest = json.loads((folder.parent / "run" / "dataset.json").read_text())["digest"]
    assert {"train images", "train labels", "train groups", "test images", "class names"} <= digest.keys()


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    state = {"iteration": 3, "images": torch.randn(2, 3), "momentum": None, "sets": [[torch.ones(1), torch.zeros(2)]]}
    checkpoint.save(tmp_path, state)
    torch.testing.assert_close(checkpoint.load(tmp_path, pytest.fail), state, rtol=0, atol=0)


def test_a_single_changed_bit_is_noticed(tmp_path):
    checkpoint.save(tmp_path, {"images": torch.zeros(1000)})
    path = tmp_path / checkpoint.NAMES[0]
    content = bytearray(path.read_bytes())
    content[content.find(bytes(4000)) + 2000] = 1
    path.write_bytes(content)
    warnings = []
    assert checkpoint.load(tmp_path, warnings.append) is None and "corrupt" in warnings[0]


def test_a_checkpoint_executes_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    checkpoint.save(tmp_path, {"state": Attack()})              # its digest is right
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoint.load(tmp_path, pytest.fail)
    assert not (tmp_path / "attacked").exists()
