"""Work in parts, on several threads, comes to what the plain way comes to; the same threads, the same bytes."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from test_training import grouped, linear

from fairdd.core import parallel
from fairdd.evaluation.training import TrainConfig, accumulate_gradients, evaluate_synset
from fairdd.matching.gradient import (
    ALIGNMENTS,
    class_gradient,
    embedding_loss,
    embeddings,
    gradient_losses,
    real_gradients,
)
from fairdd.matching.synset import SynSet
from networks import get_network

LABELS = torch.arange(3).repeat_interleave(9)
GROUPS = torch.arange(27) % 4
SYN_LABELS = torch.arange(3).repeat_interleave(2)
CPU = torch.device("cpu")


@pytest.fixture
def scene():
    """A network, real images (27, 3, 8, 8) of LABELS and GROUPS, synthetic ones (6, 3, 8, 8), float64."""
    torch.manual_seed(0)
    net = get_network("ConvNetD1W32", 3, 3, (8, 8)).double()
    return net, torch.randn(27, 3, 8, 8).double(), torch.randn(6, 3, 8, 8).double().requires_grad_(True)


@pytest.fixture
def threads():
    """Set the number of threads; afterwards it is as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def cut(monkeypatch, size):
    monkeypatch.setattr(engine, "max_chunk_size", lambda net, image: size)


def dm(net, real, syn, align):
    return embedding_loss(net, real, syn, SYN_LABELS, ALIGNMENTS[align](LABELS, GROUPS))


def dc(net, real, syn, align):
    by_class = [syn[label == SYN_LABELS] for label in range(3)]
    return sum(gradient_losses(net, real, by_class, ALIGNMENTS[align](LABELS, GROUPS)))


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("method", [dm, dc])
def test_parts_and_threads_change_no_loss_and_no_pixel_gradient(scene, threads, monkeypatch, method, align):
    net, real, syn = scene
    found = []
    for count, size in ((1, sys.maxsize), (1, 1), (1, 5), (2, 1), (3, 5), (2, sys.maxsize)):
        threads(count)
        cut(monkeypatch, size)
        loss = method(net, real, syn, align)
        found.append((loss.detach(), torch.autograd.grad(loss, syn)[0]))
    for loss, gradient in found[1:]:
        assert torch.isclose(loss, found[0][0], rtol=1e-10)
        assert (gradient - found[0][1]).norm() <= 1e-10 * found[0][1].norm()


@pytest.mark.parametrize("method", [dm, dc])
def test_the_same_threads_give_the_same_bytes(scene, threads, monkeypatch, method):
    net, real, syn = scene
    threads(3)
    cut(monkeypatch, 2)
    first, again = (torch.autograd.grad(method(net, real, syn, "fairdd"), syn)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_a_targets_gradient_is_that_of_its_images_at_once(scene, threads, monkeypatch):
    net, real, _ = scene
    threads(2)
    cut(monkeypatch, 2)
    for label, (mine,) in real_gradients(net, real, ALIGNMENTS["vanilla"](LABELS, GROUPS)):
        for part, whole in zip(mine, class_gradient(net, real[label == LABELS], label), strict=True):
            assert torch.allclose(part, whole, rtol=1e-10, atol=1e-12)


def test_batch_norm_in_training_gets_the_whole_batch(scene):
    _, real, _ = scene
    net = get_network("ConvNetD1W32BN", 3, 3, (8, 8)).double()
    assert parallel.max_chunk_size(net, real[:1]) > len(real)
    assert parallel.max_chunk_size(net.eval(), real[:1]) < sys.maxsize
    with torch.no_grad():
        whole = net.train().embed(real)
    assert torch.equal(embeddings(net, real), whole)


def test_a_training_batch_in_parts_has_the_gradient_of_the_whole(scene, threads, monkeypatch):
    net, real, _ = scene
    torch.nn.functional.cross_entropy(net(real), LABELS).backward()
    whole = [weight.grad.clone() for weight in net.parameters()]
    threads(2)
    cut(monkeypatch, 4)
    accumulate_gradients(net, real, LABELS)
    for weight, gradient in zip(net.parameters(), whole, strict=True):
        assert torch.allclose(weight.grad, gradient, rtol=1e-10, atol=1e-12)


def test_networks_side_by_side_come_to_the_figures_of_one_after_another(threads):
    data = grouped(60)
    syn = SynSet(data.batch(torch.arange(20)), data.labels[:20], 0.1)
    found = []
    for count in (1, 3):
        threads(count)
        found.append(evaluate_synset(linear, syn.as_dataset(), data, TrainConfig(3, 0.01, strategy="color_flip"), 5, "key"))
    assert found[0] == found[1]


def test_results_come_in_order_and_an_error_comes_through(threads):
    threads(3)
    assert list(parallel.ordered_map(lambda x: x * x, range(20), CPU)) == [x * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(parallel.ordered_map(lambda x: 1 // x, [1, 0, 1, 1, 1], CPU))


def test_workers_end_at_once_when_nobody_waits_for_them(threads):
    threads(2)
    begun, done = threading.Event(), []

    def forever(item):
        if item == 0:
            return 0
        for _ in parallel.ordered_map(lambda _: begun.set(), iter(int, 1), CPU):     # without end
            pass
        done.append(item)

    for _ in parallel.ordered_map(forever, range(5), CPU):
        begun.wait(10)
        break
    assert not done


def test_the_benchmark_runs_and_both_ways_agree(tmp_path):
    script = Path(__file__).parent.parent / "scripts" / "benchmark.py"
    out = tmp_path / "benchmark.json"
    rows = ["DM", "inner", "table"]
    command = [sys.executable, str(script), "--quick", "--repeats", "1", "--rows", *rows, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert result["error"] < 1e-10 and list(result["rows"]) == rows
