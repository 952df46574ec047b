"""Run folders are read with care: what is unfinished or damaged is named; the command that repeats a run is right."""

import json

import pytest
from test_report import network, refused, write_run

from fairdd.flags import parse
from fairdd.report.load_runs import read_run
from networks import EVAL_POOLS, find_network


@pytest.mark.parametrize("command", [
    ["DM"], ["DM", "--FairDD", "--dataset", "CelebA", "--ipc", "100", "--target_attr", "Big_Nose,Young"],
    ["DC", "--dataset", "UTKface"], ["DC", "--epoch_eval_train", "300"], ["DSA", "--init", "balanced", "--seed", "4"],
])
def test_the_command_of_a_run_gives_its_flags_again(tmp_path, command):
    methods, pools = [command[0]], ["S", "SS", *EVAL_POOLS]
    flags = parse(methods, find_network, pools, command[1:]).as_dict()
    run = read_run(write_run(tmp_path / "run", [1], **(flags | {"num_exp": 1, "num_eval": 1})))
    words = run.command().split()
    assert len(words) < 40
    again = parse(methods, find_network, pools, words[2:]).as_dict()
    assert words[1] == ("main_DM.py" if command[0] == "DM" else "main_DC.py")
    assert again == flags | {"num_exp": 1, "num_eval": 1}


def test_an_unfinished_run_is_named(tmp_path, capsys):
    folders = [write_run(tmp_path / name, [1]) for name in "ab"]
    (folders[1] / "results.json").unlink()
    assert f"{folders[1]} holds no finished run" in refused(capsys, *folders, "--out", tmp_path / "out")
    assert "nowhere holds no finished run" in refused(capsys, "nowhere", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


DAMAGE = {
    "flags.json": [b"", b"[]", b'{"flags": {}, "versions": {}}', b"\xff", b"9" * 5000],
    "results.json": [b"{", b'{"model": "ConvNet", "class_names": 3, "group_names": []}', b"[" * 100_000],
    "evaluations.jsonl": [b"", b"null\n", b'{"experiment": 0, "iteration": 5, "model": "ConvNet", "networks": [1]}\n',
                          json.dumps({"experiment": 0, "iteration": 5, "model": "ConvNet",
                                      "networks": [network(10)] * 2}).replace("10", "NaN", 1).encode(),
                          json.dumps({"experiment": 0, "iteration": 5, "model": "ConvNet",
                                      "networks": [network(10) | {"DEO_A": "many"}] * 2}).encode()],
    "data.json": [b"{}", b'{"train": [[1, 2]], "test": [[1, 2]]}',
                  b'{"train": [[1, 2], [3, 4]], "test": [[1, 2], [3, null]]}'],
    "embedding.json": [b"{}", b'{"real": {"points": [[1, 2, 3]], "labels": [0], "groups": [0]}}'],
    "experiment0_iteration00005.png": [b"", b"\x89PNG\r\n\x1a\n"],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, some in DAMAGE.items() for content in some])
def test_a_damaged_file_is_named(tmp_path, capsys, name, content):
    folder = write_run(tmp_path / "run", [10, 20])
    (folder / name).write_bytes(content)
    assert str(folder / name) in refused(capsys, folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
