"""What one sees of a run under way: bars where there is a terminal, event files where they are asked for."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import main_DM
from fairdd.run.tensorboard import recorder

QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "3"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_show_the_loss_the_speed_and_the_time_left_on_a_terminal_only(tmp_path, monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        main_DM.main([*QUICK, "--save_path", str(tmp_path / type(stream).__name__)])
        text = stream.getvalue()
        assert ("loss=" in text and "it/s" in text and "100%" in text and "<" in text) == stream.isatty()
        assert ("testing ConvNetD1W32" in text) == stream.isatty()
    assert text == ""


def scalars(folder):
    """tag -> steps of everything in the event files of a folder, as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    return ({tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
            | {tag: [event.step for event in events.Images(tag)] for tag in tags["images"]})


def test_event_files_hold_losses_figures_and_pictures_and_change_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    for name, flags in {"with": ["--tensorboard"], "without": []}.items():
        main_DM.main([*QUICK, "--eval_every", "2", *flags, "--save_path", str(tmp_path / name)])
    figures = {f"{name}/ConvNetD1W32": [0, 2, 3] for name in ("accuracy", "DEO_M", "DEO_A")}
    found = scalars(tmp_path / "with" / "tensorboard" / "experiment0")
    assert found == figures | {"loss": [0, 1, 2], "synthetic": [0, 2, 3]}
    for name in ("synthetic.pt", "results.json", "evaluations.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_run_that_goes_on_records_every_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    for steps in (range(5), range(3, 7)):           # killed after step 4, saved before step 3
        with recorder(SimpleNamespace(tensorboard=True), Path(tmp_path), 0, steps[0]) as events:
            for step in steps:
                events.add_scalar("loss", 1.0, step)
    assert scalars(tmp_path / "tensorboard" / "experiment0") == {"loss": list(range(7))}


def test_without_the_package_the_flag_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)       # as if it were not installed
    with pytest.raises(SystemExit) as stop:
        main_DM.main([*QUICK, "--tensorboard", "--save_path", str(tmp_path / "run")])
    assert stop.value.code == 2 and "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
