"""What a user sees of a run in progress: bars on a terminal, event files with --tensorboard."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main_DM
from fairdd.run.tensorboard import open_writer

QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "3"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_show_loss_speed_and_time_left_on_a_terminal_only(tmp_path, monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        main_DM.main([*QUICK, "--save_path", str(tmp_path / type(stream).__name__)])
        text = stream.getvalue()
        assert ("loss=" in text and "it/s" in text and "100%" in text and "<" in text) == stream.isatty()
        assert ("testing ConvNetD1W32" in text) == stream.isatty()
    assert text == ""


def recorded_events(folder):
    """Return the steps of every tag in the event files of a folder, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    tags = accumulator.Tags()
    return ({tag: [event.step for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}
            | {tag: [event.step for event in accumulator.Images(tag)] for tag in tags["images"]})


def test_event_files_hold_losses_metrics_and_pictures_and_change_no_result(tmp_path):
    for name, flags in {"with": ["--tensorboard"], "without": []}.items():
        main_DM.main([*QUICK, "--eval_every", "2", *flags, "--save_path", str(tmp_path / name)])
    metrics = {f"{name}/ConvNetD1W32": [0, 2, 3] for name in ("accuracy", "DEO_M", "DEO_A")}
    assert recorded_events(tmp_path / "with" / "tensorboard" / "experiment0") == metrics | {
        "loss": [0, 1, 2], "synthetic": [0, 2, 3]}
    for name in ("synthetic.pt", "results.json", "evaluations.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_resumed_run_records_every_step_once(tmp_path):
    for steps in (range(5), range(3, 7)):           # killed after step 4, saved before step 3
        with open_writer(SimpleNamespace(tensorboard=True), Path(tmp_path), 0, steps[0]) as writer:
            for step in steps:
                writer.add_scalar("loss", 1.0, step)
    assert recorded_events(tmp_path / "tensorboard" / "experiment0") == {"loss": list(range(7))}


def test_without_the_package_the_flag_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)       # as if it were not installed
    with pytest.raises(SystemExit) as stop:
        main_DM.main([*QUICK, "--tensorboard", "--save_path", str(tmp_path / "run")])
    assert stop.value.code == 2 and "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
