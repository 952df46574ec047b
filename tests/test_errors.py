"""User errors and signals end a command with a message and a status, and nothing else of the process changes."""

import os
import signal
import threading

import pytest
from refusal import refusal

import main_DM
from fairdd.core.errors import Interrupted, UserError, catch_termination, report_user_errors
from fairdd.run import loop


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_interrupts_later_ones_are_ignored_and_handlers_are_restored(number):
    before, is_saved = handlers(), False
    with pytest.raises(Interrupted) as caught, catch_termination():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            is_saved = True
    assert caught.value.number == number and is_saved and handlers() == before


def test_user_errors_and_signals_end_a_command_with_a_message_and_a_status(capsys):
    for error, message, status in ((UserError("no such flag"), "error: no such flag\n", 2),
                                   (Interrupted(signal.SIGTERM), "interrupted by SIGTERM; re-run", 143),
                                   (Interrupted(signal.SIGINT), "interrupted by SIGINT; re-run", 130)):
        @report_user_errors
        def command(error=error):
            raise error

        with pytest.raises(SystemExit) as caught:
            command()
        assert caught.value.code == status and capsys.readouterr().err.startswith(message)


def test_a_run_in_a_thread_gives_the_same_set_and_leaves_signal_handlers_alone(tmp_path):
    before, seen = handlers(), []

    def run(name):
        main_DM.main(["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10", "--model",
                      "ConvNetD1W32", "--im_size", "8", "--Iteration", "2", "--quiet",
                      "--save_path", str(tmp_path / name)])
        seen.append(handlers())

    run("main")
    thread = threading.Thread(target=run, args=["thread"])
    thread.start()
    thread.join()
    assert seen == [before, before]
    assert (tmp_path / "thread/synthetic.pt").read_bytes() == (tmp_path / "main/synthetic.pt").read_bytes()
    assert (tmp_path / "thread/results.json").exists()


def test_an_error_of_the_disk_names_the_file_and_the_reason_as_they_are(tmp_path, capsys):
    message = refusal(capsys, report_user_errors(lambda: (tmp_path / "labels.csv").read_text()))
    assert message == f"error: {tmp_path / 'labels.csv'}: No such file or directory\n"


def test_reading_data_that_fails_is_not_called_a_failed_write(tmp_path, capsys, monkeypatch):
    def unreadable(*_args, **_options):
        raise PermissionError(13, "Permission denied", "/data/batch")

    monkeypatch.setattr(loop, "get_dataset", unreadable)
    message = refusal(capsys, main_DM.main, ["--save_path", str(tmp_path / "run")])
    assert message == "error: /data/batch: Permission denied\n"
