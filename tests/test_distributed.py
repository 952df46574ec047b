"""Several ranks compute what one process computes, and end together: with one message, or with the same bytes.

Ranks talk over loopback; two node ranks stand for two machines. No wait is longer than its time limit.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import main_DC
import main_DM
from fairdd import evaluate
from fairdd.core import distributed
from fairdd.core.errors import UserError, report_user_errors
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.embedding import EMBEDDING_DISTANCES, embedding_loss
from fairdd.matching.features import feature_loss
from fairdd.matching.gradient import CONVOLUTION_DISTANCES, GRADIENT_DISTANCES, gradient_loss
from fairdd.matching.gradient_at_once import gradient_loss_at_once
from fairdd.matching.shares import own_rows, own_targets, sum_over_team
from networks import get_network

ROOT = Path(__file__).parent.parent
TIME_LIMIT = 120        # seconds, of any process or wait
SMALL = ["--num_eval", "3", "--epoch_eval_train", "2", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "6", "--eval_every", "3", "--save_every", "1", "--FairDD", "--device", "cpu"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(size, work):
    """Start work() on ranks of their own, forked so that they start at once; return the processes."""
    port = free_port()

    def rank_process(rank):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(port))
        work()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=rank_process, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def exit_statuses(processes):
    for process in processes:
        process.join(TIME_LIMIT)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def on_ranks(size, work, folder):
    """Return what work() returns on each rank."""

    def save():
        with distributed.joined_ranks():
            torch.save(work(), folder / f"{distributed.rank()}.pt")

    assert exit_statuses(start_ranks(size, save)) == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def batch(num_classes):
    """Return real images, their labels and groups, and two synthetic images of each class. One cell has one image."""
    torch.manual_seed(1)
    labels = torch.arange(num_classes).repeat_interleave(13)
    groups = torch.randint(0, 2, labels.shape)
    groups[0] = 2
    real = torch.randn(len(labels), 3, 8, 8, dtype=torch.float64)
    return real, labels, groups, torch.randn(2 * num_classes, 3, 8, 8, dtype=torch.float64)


def losses_and_gradients(num_classes):
    """Return the loss of every class and the gradient of the pixels, by method, distance and alignment."""
    real, labels, groups, syn = batch(num_classes)
    syn_labels = torch.arange(num_classes).repeat_interleave(2)
    net = get_network("ConvNetD2W32", 3, num_classes, (8, 8)).double()
    classes, results = syn.split(2), {}
    for align, find_targets in ALIGNMENTS.items():
        targets = find_targets(labels, groups)
        for name, distance in EMBEDDING_DISTANCES.items():
            results["DM", name, align] = embedding_loss(net, real, syn, syn_labels, targets, distance)
        for name, distance in [*GRADIENT_DISTANCES.items(), *CONVOLUTION_DISTANCES.items()]:
            losses, gradients = gradient_loss(net, real, classes, targets, distance)
            results["DC", name, align] = losses, torch.cat(gradients)
        results["CAFE", "ours", align] = feature_loss(net, real, syn, syn_labels, targets, labels)
    return results


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("num_classes", [2, 5])         # fewer classes than ranks, or more
def test_ranks_have_the_loss_and_the_pixel_gradient_of_one_process(size, num_classes, tmp_path):
    expected = losses_and_gradients(num_classes)
    for actual in on_ranks(size, lambda: losses_and_gradients(num_classes), tmp_path):
        assert actual.keys() == expected.keys()
        for name, pair in expected.items():
            for value, reference in zip(actual[name], pair, strict=True):
                assert torch.allclose(value, reference, rtol=1e-12, atol=1e-12), name


def test_ranks_that_match_all_classes_at_once_have_the_gradient_of_one_process(tmp_path):
    real, labels, groups, syn = batch(2)
    net = get_network("ConvNetD2W32", 3, 2, (8, 8)).double()
    targets, distance = ALIGNMENTS["fairdd"](labels, groups), GRADIENT_DISTANCES["ours"]

    def own_gradient():
        own = own_targets(targets)
        losses, gradients = gradient_loss_at_once(net, real, syn.split(2), own, distance,
                                                  lambda gradients: sum_over_team(targets, gradients))
        return losses[own.classes], torch.cat(gradients).unflatten(0, (2, 2))[own.classes]

    losses, gradients = gradient_loss_at_once(net, real, syn.split(2), targets, distance)
    for rank, (loss, gradient) in enumerate(on_ranks(3, own_gradient, tmp_path)):
        label = [rank % 2]
        assert torch.allclose(loss.flatten()[:1], losses[label], rtol=1e-12, atol=1e-12)
        assert torch.allclose(gradient[0], gradients[rank % 2], rtol=1e-12, atol=1e-12)


def test_results_reach_rank_0_in_the_order_of_their_keys(tmp_path):
    keys = [("a", number) for number in range(5)]

    def collected():
        own = ({"rank": distributed.rank(), "of": key[1]} for key in distributed.share_of(keys))
        return list(distributed.collect(keys, own)) if distributed.rank() == 0 else \
            [None for _ in distributed.collect(keys, own)]

    assert on_ranks(2, collected, tmp_path)[0] == [(key, {"rank": key[1] % 2, "of": key[1]}) for key in keys]


def test_synchronized_networks_have_the_weights_of_rank_0(tmp_path):
    def weights():
        torch.manual_seed(distributed.rank())
        net = distributed.synchronize(get_network("ConvNetD1W32BN", 3, 2, (8, 8)))
        return torch.cat([tensor.flatten().double() for tensor in net.state_dict().values()])

    first, second = on_ranks(2, weights, tmp_path)
    assert torch.equal(first, second)


def test_the_first_rank_of_a_machine_goes_before_the_others(tmp_path):
    def seen():
        with distributed.first_on_machine("data"):
            time.sleep(1 - distributed.rank())
            existed = (tmp_path / "decoded").exists()
            (tmp_path / "decoded").touch()
        return existed

    assert on_ranks(2, seen, tmp_path) == [False, True]


def test_an_error_of_one_other_rank_ends_all_ranks_with_its_message_and_status(tmp_path, capfd):
    @report_user_errors
    def main():
        if distributed.rank() == 1:
            raise UserError("this machine lacks the data")
        distributed.sum_over_ranks(torch.ones(1))           # waits for rank 1

    assert exit_statuses(start_ranks(3, main)) == [2, 2, 2]
    assert capfd.readouterr().err.count("error: this machine lacks the data\n") == 1


def test_ranks_evaluate_a_saved_set_together(tmp_path):
    main_DM.main([*SMALL, "--Iteration", "0", "--quiet", "--save_path", str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run"), "--num_eval", "5", "--out", str(tmp_path / "alone")])
    on_ranks(3, lambda: evaluate.main([str(tmp_path / "run"), "--num_eval", "5", "--out", str(tmp_path / "shared")]),
             tmp_path)
    shared, alone = ((tmp_path / name / "metrics_per_network.jsonl").read_bytes() for name in ("shared", "alone"))
    assert shared == alone


def test_without_torchrun_there_is_one_rank():
    tensor = torch.ones(2)
    assert distributed.world_size() == 1 and distributed.rank() == 0
    assert distributed.sum_over_ranks(tensor)[0] is tensor and distributed.share_of([1, 2]) == [1, 2]


def torchrun(folder, *flags, entry="main_DM.py", ranks=2, restarts=0, launcher=()):
    """Start an entry under torchrun; return the process, which leads a process group of its own."""
    where = launcher or ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts",
               str(restarts), *where, str(ROOT / entry), *SMALL, "--save_path", str(folder), *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finished(process):
    """Return the standard output and error of a process, which must end within the time limit."""
    try:
        return process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def result_bytes(folder):
    names = ["synthetic.pt", "results.json", "evaluations.jsonl", "metrics_per_network.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def rank_pids(process):
    """Return the process ids of the ranks of a launcher, in the order of their start."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def wait_until(condition, process):
    deadline = time.monotonic() + TIME_LIMIT
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run of two ranks that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = torchrun(folder)
    output, errors = finished(process)
    assert process.returncode == 0, errors
    assert output.count("evaluation") == 0 and output.count("are in") == 1       # one rank owns the terminal
    return folder


def test_a_run_of_two_ranks_has_the_results_of_one_process(undisturbed, tmp_path):
    main_DM.main([*SMALL, "--save_path", str(tmp_path / "run")])
    [[actual, _]], [[expected, _]] = (torch.load(folder / "synthetic.pt")["data"]
                                     for folder in (undisturbed, tmp_path / "run"))
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)


OTHER_METHODS = ["DC --outer_loop 2 --inner_loop 1", "IDC --pixel_steps 2 --n_data 10 --lr_img 0.001",
                 "DREAM --pixel_steps 2 --n_data 10 --cluster_every 1 --lr_img 0.001",
                 "CAFE --max_steps 2 --max_epochs 2"]


@pytest.mark.parametrize("line", ["DM --warmup_epochs 1", *OTHER_METHODS, "DM --groups dbscan --batch_real 40",
                                  "DM --select val --num_exp 2"])
def test_a_run_of_three_ranks_has_the_results_of_one_process(line, tmp_path):
    method, *flags = line.split()
    main = main_DM.main if method in ("DM", "CAFE") else main_DC.main
    argv = [*SMALL, "--Iteration", "2", "--eval_every", "1", "--method", method, *flags, "--quiet"]
    main([*argv, "--save_path", str(tmp_path / "alone")])
    on_ranks(3, lambda: main([*argv, "--save_path", str(tmp_path / "shared")]), tmp_path)
    sets, expected = (torch.load(tmp_path / name / "synthetic.pt")["data"] for name in ("shared", "alone"))
    for (images, _), (of_one, _) in zip(sets, expected, strict=True):
        assert torch.allclose(images, of_one, rtol=1e-3, atol=1e-3)
    lines, of_one = ((tmp_path / name / "metrics_per_network.jsonl").read_text().count("\n")
                     for name in ("shared", "alone"))
    assert lines == of_one


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_and_restarted_ends_with_the_same_bytes(undisturbed, victim, tmp_path):
    assert result_bytes(killed_and_restarted(tmp_path / "run", victim)) == result_bytes(undisturbed)


@pytest.mark.parametrize("line", OTHER_METHODS)
def test_every_method_ends_with_the_same_bytes_after_a_rank_was_killed(line, tmp_path):
    method, *flags = line.split()
    flags = ["--method", method, *flags, "--Iteration", "3", "--eval_every", "1", "--save_every", "1"]
    entry = "main_DM.py" if method == "CAFE" else "main_DC.py"
    process = torchrun(tmp_path / "undisturbed", *flags, entry=entry)
    _, errors = finished(process)
    assert process.returncode == 0, errors
    killed = killed_and_restarted(tmp_path / "run", 1, *flags, entry=entry)
    assert result_bytes(killed) == result_bytes(tmp_path / "undisturbed")


def killed_and_restarted(folder, victim, *flags, **options):
    """Kill a rank once the first networks are tested; return the folder of the run, which the launcher restarts."""
    process = torchrun(folder, *flags, restarts=3, **options)
    wait_until((folder / "evaluations.jsonl").exists, process)
    os.kill(rank_pids(process)[victim], signal.SIGKILL)
    _, errors = finished(process)
    assert process.returncode == 0, errors
    return folder


def test_two_machines_have_the_bytes_of_one(undisturbed, tmp_path):
    port, folder = str(free_port()), tmp_path / "run"
    machines = [torchrun(folder, ranks=1, launcher=("--nnodes", "2", "--node-rank", str(rank), "--master-addr",
                                                    "127.0.0.1", "--master-port", port)) for rank in range(2)]
    outputs = [finished(machine) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert result_bytes(folder) == result_bytes(undisturbed)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    folder = tmp_path / "run"
    process = torchrun(folder)
    wait_until((folder / "evaluations.jsonl").exists, process)
    os.kill(rank_pids(process)[1], signal.SIGTERM)         # any rank's signal ends all, after rank 0 has saved
    _, errors = finished(process)
    assert process.returncode != 0 and errors.count("re-run the same command to resume") == 1
    main_DM.main([*SMALL, "--save_path", str(folder)])
    assert (folder / "results.json").exists()


@pytest.mark.parametrize("flags, message", [
    (["--ipc", "-1"], "error: argument --ipc"),                             # seen by every rank
    (["--lr_img", "1e38"], "error: the loss is"),                           # seen in the loop
])
def test_a_users_error_ends_all_ranks_with_one_message_and_status_2(flags, message, tmp_path):
    process = torchrun(tmp_path / "run", *flags)
    _, errors = finished(process)
    assert errors.count(message) == 1 and "Traceback (most recent call last):\n  File \"" + str(ROOT) not in errors
    assert "exitcode  : 2" in errors and process.returncode != 0


def test_an_error_of_rank_0_alone_ends_all_ranks(undisturbed):
    process = torchrun(undisturbed, "--seed", "1")         # the folder, which rank 0 reads, holds a run of another seed
    _, errors = finished(process)
    assert errors.count("use another --save_path") == 1 and "exitcode  : 2" in errors


@pytest.mark.parametrize("count", [1, 2, 4, 5, 26])
def test_every_row_counts_on_one_rank(count, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    counts = torch.zeros(count)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        rows, counted = own_rows(count)
        counts[rows] += counted
    assert (counts == 1).all()
