"""Nothing is lost and nothing changes when a run is stopped: by SIGKILL at any moment, by a signal, by a full disk."""


import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time

import pytest
import sklearn.datasets  # noqa: F401  what a run imports late: here, so that a forked one has it at once
import torch
import torch._dynamo
import torchvision.utils  # noqa: F401

import main_DC
import main_DM
from fairdd.lock import exclusive_lock
from fairdd.run import checkpoint

ENTRIES = {"DM": main_DM.main, "DC": main_DC.main}
SMALL = ["--num_eval", "2", "--epoch_eval_train", "2", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--num_exp", "2", "--Iteration", "6", "--eval_every", "3", "--save_every", "1", "--FairDD"]


def start(method, folder, *flags, limit=None):
    """The entry in a process of its own, forked, so that it starts at once. limit: of bytes per file it may write."""

    def work():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(errors_of(folder), "a", buffering=1)  # noqa: SIM115
        ENTRIES[method]([*SMALL, "--save_path", str(folder), *flags])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def whole(method, folder, *flags):
    """Run to the end. -> exit status"""
    process = start(method, folder, *flags)
    process.join(120)
    return process.exitcode


def errors_of(folder):
    """Where the processes of a run write what they say on stderr."""
    return folder.with_name(folder.name + ".err")


def outcome(folder):
    """The bytes that must not depend on when a run was stopped."""
    names = ["synthetic.pt", "results.json", "evaluations.jsonl", "networks.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def kill_again_and_again(method, folder, kills, seed, longest, expected):
    """Kill a run this many times, each at a random moment up to longest seconds after its start.

    A run that comes to its end before is compared and begun anew; so is the last one, which nobody kills.
    """
    moments, killed = random.Random(seed), 0
    while killed < kills:
        process = start(method, folder)
        process.join(moments.uniform(0, longest))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        if (folder / "results.json").exists():
            assert outcome(folder) == expected
            shutil.rmtree(folder)
    assert whole(method, folder) == 0 and outcome(folder) == expected


@pytest.fixture(scope="module", params=ENTRIES)
def reference(request, tmp_path_factory):
    """A method, an uninterrupted run of it, and the seconds it took."""
    folder = tmp_path_factory.mktemp("reference") / request.param
    began = time.monotonic()
    assert whole(request.param, folder) == 0
    return request.param, outcome(folder), time.monotonic() - began


def test_a_run_killed_again_and_again_comes_to_the_same_bytes(reference, tmp_path):
    method, expected, seconds = reference
    kill_again_and_again(method, tmp_path / "run", 10, 0, seconds / 2, expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_so_and_is_the_exit_status(reference, tmp_path, number):
    method, expected, _ = reference
    folder = tmp_path / "run"
    process = start(method, folder)
    while not (folder / checkpoint.NAMES[0]).exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number and "the same command goes on from here" in errors_of(folder).read_text()
    assert whole(method, folder) == 0 and outcome(folder) == expected


def test_a_second_writer_is_refused_with_the_first_ones_process_and_host(tmp_path):
    with exclusive_lock(tmp_path):
        assert whole("DM", tmp_path) == 2
    assert f"process {os.getpid()} on {socket.gethostname()}" in errors_of(tmp_path).read_text()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    with exclusive_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


@pytest.mark.parametrize("damage", [b"", b"not a state", None])
def test_a_damaged_state_is_said_and_the_one_before_it_used(reference, tmp_path, damage):
    method, expected, _ = reference
    folder = tmp_path / "run"
    stop_after_two_states(method, folder)
    newest = folder / checkpoint.NAMES[0]
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    assert whole(method, folder) == 0 and outcome(folder) == expected
    assert f"{newest} is damaged" in (folder / "log.txt").read_text()


def test_without_any_whole_state_the_run_begins_anew(reference, tmp_path):
    method, expected, _ = reference
    folder = tmp_path / "run"
    stop_after_two_states(method, folder)
    for name in checkpoint.NAMES:
        (folder / name).write_bytes(b"damaged")
    assert whole(method, folder) == 0 and outcome(folder) == expected


def test_a_full_disk_ends_in_words_and_leaves_the_last_state_whole(reference, tmp_path):
    method, expected, _ = reference
    folder = tmp_path / "run"
    process = start(method, folder, limit=20_000)           # enough for flags and states, not for the synthetic sets
    process.join(60)
    assert process.exitcode == 2
    assert "what was saved before is whole" in errors_of(folder).read_text()
    assert whole(method, folder) == 0 and outcome(folder) == expected


def stop_after_two_states(method, folder):
    """A run killed when both of its states are there."""
    process = start(method, folder)
    while not all((folder / name).exists() for name in checkpoint.NAMES):
        time.sleep(0.01)
    process.kill()
    process.join()


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"iteration": 3, "images": torch.randn(2, 3), "momentum": None, "sets": [[torch.ones(1), torch.zeros(2)]]}
    checkpoint.save(tmp_path, state)
    loaded = checkpoint.load(tmp_path, pytest.fail)
    assert checkpoint.digest(loaded) == checkpoint.digest(state) and torch.equal(loaded["images"], state["images"])


def test_one_changed_number_is_noticed(tmp_path):
    checkpoint.save(tmp_path, {"images": torch.zeros(1000)})
    path = tmp_path / checkpoint.NAMES[0]
    content = bytearray(path.read_bytes())
    place = content.find(bytes(4000)) + 2000
    content[place] = 1
    path.write_bytes(content)
    said = []
    assert checkpoint.load(tmp_path, said.append) is None and "damaged" in said[0]


def test_nothing_in_a_state_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"state": Evil(), "digest": ""}, tmp_path / checkpoint.NAMES[0])
    assert checkpoint.load(tmp_path, lambda _: None) is None and not (tmp_path / "owned").exists()
