"""Chunks and threads change no result; workers end with their consumer; precision changes what layers compute in."""

import ctypes
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from refusal import refusal
from test_matching import dc_loss
from test_training import brightness_data, linear_net
from torch import nn

import main_DC
import main_DM
from fairdd.core import parallel
from fairdd.core.errors import UserError
from fairdd.evaluation.training import TrainConfig, accumulate_gradients, evaluate_synset, predict
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.embedding import embedding_loss, embeddings
from fairdd.matching.gradient import class_gradient, frozen_batchnorm, target_gradients
from fairdd.matching.synset import SynSet
from fairdd.run.preflight import check_networks
from networks import get_network

LABELS = torch.arange(3).repeat_interleave(9)
GROUPS = torch.arange(27) % 4
SYN_LABELS = torch.arange(3).repeat_interleave(2)
CPU = torch.device("cpu")
FIRST_MAP_BYTES = 32 * 8 * 8 * 8        # of one image of the problem: 32 channels of 8 x 8 float64
EVERYTHING = 100
every_method = pytest.mark.parametrize("loss", [embedding_loss, dc_loss])


@pytest.fixture
def problem():
    """Return a network, real images (27, 3, 8, 8) of LABELS and GROUPS, synthetic ones (6, 3, 8, 8), float64."""
    torch.manual_seed(0)
    net = get_network("ConvNetD1W32", 3, 3, (8, 8)).double()
    return net, torch.randn(27, 3, 8, 8).double(), torch.randn(6, 3, 8, 8).double()


@pytest.fixture
def set_threads():
    """Return a function that sets the number of threads; afterwards it is as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def set_chunk_size(monkeypatch):
    """Return a function that sets how many images of the problem fit a chunk."""
    return lambda size: monkeypatch.setitem(parallel.CHUNK_BYTES, "cpu", size * FIRST_MAP_BYTES)


def record_batches(net):
    """Return a list that receives the size of every batch that the network's first layer sees."""
    sizes, first = [], next(module for module in net.modules() if not list(module.children()))
    first.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    return sizes


def run_loss(loss, problem, align):
    net, real, syn = problem
    return loss(net, real, syn, SYN_LABELS, ALIGNMENTS[align](LABELS, GROUPS))


@pytest.mark.parametrize("align", ALIGNMENTS)
@every_method
def test_chunks_and_threads_change_no_loss_and_no_pixel_gradient(problem, set_threads, set_chunk_size, loss, align):
    batches, results = record_batches(problem[0]), []
    for threads, size in ((1, EVERYTHING), (1, 1), (1, 5), (2, 1), (3, 5), (2, EVERYTHING)):
        set_threads(threads)
        set_chunk_size(size)
        batches.clear()
        results.append(run_loss(loss, problem, align))
        assert max(batches) <= size + 1         # a class's two synthetic images stay together
    for result in results[1:]:
        for value, expected in zip(result, results[0], strict=True):
            assert (value - expected).norm() <= 1e-10 * expected.norm()


@every_method
def test_the_same_number_of_threads_gives_the_same_bytes(problem, set_threads, set_chunk_size, loss):
    set_threads(3)
    set_chunk_size(2)
    first, *others = (run_loss(loss, problem, "fairdd") for _ in range(5))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


class FlatNet(nn.Module):
    """Embeds an image as its pixels."""

    def embed(self, images):
        return images.flatten(1)


def test_two_threads_inside_an_operation_give_the_same_pixel_gradient_every_time(set_threads):
    set_threads(2)
    labels, groups, syn_labels = torch.zeros(200).long(), torch.arange(200) % 100, torch.zeros(2).long()
    real, syn = torch.randn(200, 3, 32, 32), torch.randn(2, 3, 32, 32)
    targets = ALIGNMENTS["fairdd"](labels, groups)      # a hundred targets of one class: their gradients are summed
    first, *others = (embedding_loss(FlatNet(), real, syn, syn_labels, targets)[1] for _ in range(20))
    assert all(torch.equal(first, other) for other in others)


def test_the_gradient_of_a_target_is_that_of_all_its_images_at_once(problem, set_threads, set_chunk_size):
    net, real, _ = problem
    expected = [class_gradient(net, real[label == LABELS], label) for label in range(3)]
    batches = record_batches(net)
    set_threads(2)
    set_chunk_size(2)
    classes = list(target_gradients(net, real, ALIGNMENTS["vanilla"](LABELS, GROUPS)))
    assert max(batches) == 2 and [label for label, *_ in classes] == [0, 1, 2]
    for label, coefficients, gradients in classes:
        assert coefficients.tolist() == [1]
        for chunked, gradient_at_once in zip(gradients, expected[label], strict=True):
            assert torch.allclose(chunked[0], gradient_at_once, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_gradients_of_real_images_are_made_class_by_class(problem, set_threads, set_chunk_size, align):
    net, real, _ = problem
    set_threads(1)
    set_chunk_size(3)
    batches, targets = record_batches(net), target_gradients(net, real, ALIGNMENTS[align](LABELS, GROUPS))
    for label, *_ in targets:
        assert sum(batches) <= 9 * (label + 1) + 9 + 3      # at most a target and a chunk ahead: few are in memory
    assert sum(batches) == 27


def test_a_chunked_training_batch_has_the_gradient_of_the_batch(problem, set_threads, set_chunk_size):
    net, real, _ = problem
    torch.nn.functional.cross_entropy(net(real), LABELS).backward()
    expected = [weight.grad.clone() for weight in net.parameters()]
    batches = record_batches(net)
    set_threads(2)
    set_chunk_size(4)
    accumulate_gradients(net, real, LABELS)
    assert sum(batches) == len(real) and max(batches) <= 4
    for weight, gradient in zip(net.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 3])
def test_chunked_predictions_are_those_of_each_image(set_threads, monkeypatch, threads):
    data, net = brightness_data(2050), linear_net()
    expected = net(data.batch(torch.arange(2050))).argmax(1)
    monkeypatch.setitem(parallel.CHUNK_BYTES, "cpu", 100 * 48 * 4)      # 100 images of 48 numbers
    batches = record_batches(net)
    set_threads(threads)
    assert torch.equal(predict(net, data), expected)
    assert sum(batches) == 2050 and 50 < max(batches) <= 100 and 0 < expected.float().mean() < 1


def test_networks_trained_side_by_side_have_the_metrics_of_one_after_another(set_threads):
    data, config = brightness_data(60), TrainConfig(3, 0.01, 10, strategy="color_flip")
    syn = SynSet(data.batch(torch.arange(20)), data.labels[:20], 0.1).as_dataset()
    names, results = set(), []

    def recording_net():
        net = linear_net()
        net.register_forward_pre_hook(lambda *_: names.add(threading.current_thread().name))
        return net

    for threads in (1, 3):
        set_threads(threads)
        names.clear()
        results.append(evaluate_synset(recording_net, syn, data, config, 5, "key"))
        assert ("MainThread" in names) == (threads == 1)
    assert results[0] == results[1] and len(results[0]) == 5


def test_results_come_in_order_from_worker_threads_and_an_error_is_raised(set_threads):
    set_threads(3)

    def slow_square(x):
        time.sleep(0.01 * (x % 3 == 0))         # so that later ones finish first
        return x * x, threading.current_thread() is threading.main_thread()

    assert list(parallel.ordered_map(slow_square, range(20), CPU)) == [(x * x, False) for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(parallel.ordered_map(lambda x: 1 // x, [1, 0, 1, 1, 1], CPU))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_items_are_taken_at_most_one_more_than_workers_ahead(set_threads, threads):
    set_threads(threads)
    taken = []
    items = (taken.append(item) or item for item in range(30))
    for number, item in enumerate(parallel.ordered_map(lambda x: x, items, CPU)):
        assert item == number and len(taken) <= number + threads + 1


def test_nested_work_stays_in_its_worker_even_if_torch_would_use_more_threads_there(set_threads):
    set_threads(2)

    def nested(item):
        torch.set_num_threads(2)
        names = {threading.current_thread().name}
        names.update(parallel.ordered_map(lambda _: threading.current_thread().name, range(5), CPU))
        torch.set_num_threads(1)
        return item, len(names)

    assert list(parallel.ordered_map(nested, range(4), CPU)) == [(item, 1) for item in range(4)]


def test_workers_end_when_their_results_are_no_longer_wanted(set_threads):
    set_threads(2)
    is_running, finished, deadline = threading.Event(), [], time.monotonic() + 20

    def run_until_cancelled(item):
        if item == 0:
            return 0
        endless = itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.count())
        for _ in parallel.ordered_map(lambda _: is_running.set(), endless, CPU):
            pass
        finished.append(item)
        return item

    for _ in parallel.ordered_map(run_until_cancelled, range(5), CPU):
        assert is_running.wait(10)
        break
    assert not finished and time.monotonic() < deadline


def test_workers_have_a_single_thread_each_and_leave_the_number_of_all_others_alone(set_threads):
    set_threads(5)
    parallel.thread_pool.cache_clear()          # new workers

    def threads_in_a_worker(_):
        torch.randn(300, 300) @ torch.randn(300, 300)
        return torch.get_num_threads()

    assert list(parallel.ordered_map(threads_in_a_worker, range(20), CPU)) == [1] * 20
    numbers = []
    new_thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    new_thread.start()
    new_thread.join()
    assert numbers == [5] and torch.get_num_threads() == 5


@pytest.mark.parametrize(("count", "size"), [(1, 1), (7, 3), (9, 3), (10, 4), (5, sys.maxsize)])
def test_slices_cover_all_rows_in_order_with_nearly_equal_lengths(count, size):
    slices = parallel.chunk_slices(count, size)
    rows = [list(range(count))[chunk] for chunk in slices]
    assert list(itertools.chain(*rows)) == list(range(count))
    assert max(map(len, rows)) <= size and max(map(len, rows)) - min(map(len, rows)) <= 1


def test_merged_segments_are_never_cut():
    segments = list(torch.arange(20).split([3, 1, 4, 2, 9, 1]))
    for size in (1, 4, 7, 100):
        chunks = parallel.merge_segments(segments, size)
        assert torch.cat(chunks).tolist() == list(range(20))
        first_rows = {segment[0].item() for segment in segments}
        assert {chunk[0].item() for chunk in chunks} <= first_rows


def test_batch_norm_in_training_gets_the_whole_batch(problem, set_chunk_size):
    _, real, _ = problem
    set_chunk_size(2)
    net = get_network("ConvNetD1W32BN", 3, 3, (8, 8)).double()
    with torch.no_grad():
        expected = net.train().embed(real)
    batches = record_batches(net)
    assert torch.equal(embeddings(net, real), expected) and batches == [len(real)]
    batches.clear()
    embeddings(net.eval(), real)
    assert sum(batches) == len(real) and max(batches) <= 2


@pytest.mark.parametrize(("norm", "shape"), [
    (nn.BatchNorm1d, (5,)), (nn.BatchNorm1d, (5, 7)), (nn.BatchNorm2d, (5, 3, 4)), (nn.BatchNorm3d, (5, 2, 3, 4)),
    (nn.SyncBatchNorm, (5, 3, 4)),
])
def test_every_kind_of_batch_norm_is_recognized_and_frozen(norm, shape):
    net, images = nn.Sequential(nn.Identity(), norm(5)).double(), 5 + 2 * torch.randn(9, *shape).double()
    assert parallel.needs_whole_batch(net) and not parallel.needs_whole_batch(net.eval())
    dims = [dim for dim in range(images.ndim) if dim != 1]
    centered = images - images.mean(dims, keepdim=True)
    expected = centered / (images.var(dims, keepdim=True) + net[1].eps).sqrt()
    with frozen_batchnorm(net.train(), images):
        assert torch.allclose(net(images[:1]), expected[:1]) and not parallel.needs_whole_batch(net)
    assert parallel.needs_whole_batch(net)


def test_batch_norm_without_running_statistics_always_needs_the_whole_batch():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    assert parallel.needs_whole_batch(net) and parallel.needs_whole_batch(net.eval())


@pytest.mark.parametrize("norm", [nn.Identity, lambda width: nn.GroupNorm(width, width), nn.InstanceNorm2d])
def test_other_norms_do_not_need_the_whole_batch(norm):
    assert not parallel.needs_whole_batch(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4)))


@pytest.mark.parametrize("entry", [main_DM, main_DC])
@pytest.mark.parametrize(("layer", "message"), [
    (nn.Dropout(0.5), r"network ConvNetD1W32: Dropout \(layer 'features.1'\) draws random numbers"),
    (nn.RReLU(), "RReLU.*draws random numbers"),
    (nn.BatchNorm2d(32, track_running_stats=False), "BatchNorm2d.*track_running_stats=True"),
])
def test_networks_whose_results_cannot_be_repeated_are_refused(tmp_path, capsys, monkeypatch, entry, layer, message):
    def changed_network(*args):
        net = get_network(*args)
        net.features[1] = layer
        return net

    monkeypatch.setattr(entry, "get_network", changed_network)
    flags = ["--ipc", "1", "--model", "ConvNetD1W32", "--im_size", "8", "--save_path", str(tmp_path)]
    assert re.search(message, refusal(capsys, entry.main, flags))


def test_dropout_with_a_probability_of_zero_is_no_random_layer():
    check_networks(["net"], lambda name: nn.Sequential(nn.Dropout(0.0), nn.BatchNorm2d(3)))


def test_fp32_is_the_network_itself():
    net = nn.Linear(2, 2)
    assert parallel.with_precision("fp32", net) is net


def test_bf16_rounds_layers_and_returns_32_bit(problem):
    net, images = problem[0].float(), problem[1].float().requires_grad_()
    rounded_net = parallel.with_precision("bf16", net)
    for exact, rounded in ((net(images), rounded_net(images)), (net.embed(images), rounded_net.embed(images))):
        difference = ((exact - rounded).norm() / exact.norm()).item()
        assert rounded.dtype == torch.float32 and 0 < difference < 2**-6        # bf16 keeps 8 bits
    [pixel_gradient] = torch.autograd.grad(rounded_net(images).sum(), images)
    assert pixel_gradient.dtype == torch.float32 and pixel_gradient.isfinite().all()


@every_method
def test_bf16_losses_and_pixel_gradients_are_close_to_those_of_fp32(problem, set_threads, loss):
    net, real, syn = problem[0].float(), problem[1].float(), problem[2].float()
    set_threads(2)
    exact, rounded = (run_loss(loss, (parallel.with_precision(name, net), real, syn), "fairdd")
                      for name in ("fp32", "bf16"))
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32 and 0 < (a - b).norm() < 0.1 * a.norm()


@pytest.fixture
def restore_tf32():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


@pytest.mark.usefixtures("restore_tf32")
def test_tf32_is_allowed_on_request_only_and_needs_a_gpu():
    for name, device in (("tf32", "cuda:0"), ("fp32", "cuda:0"), ("tf32", "cuda"), ("bf16", "cpu")):
        parallel.set_precision(name, device)
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
    with pytest.raises(UserError, match=r"--precision tf32.*GPU.*cpu"):
        parallel.set_precision("tf32", "cpu")


@pytest.mark.parametrize("entry", [main_DM, main_DC])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_network_of_a_run_computes_in_its_precision(tmp_path, monkeypatch, entry, precision, dtype):
    dtypes = []

    def recording_network(*args):
        net = get_network(*args)
        net.features[0].register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
        return net

    monkeypatch.setattr(entry, "get_network", recording_network)
    entry.main(["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10", "--model",
                "ConvNetD1W32", "--im_size", "8", "--Iteration", "1", "--FairDD", "--quiet",
                "--precision", precision, "--save_path", str(tmp_path)])
    assert len(dtypes) > 5 and set(dtypes) == {dtype}
    [(images, _)] = torch.load(tmp_path / "synthetic.pt", weights_only=True)["data"]
    assert images.dtype == torch.float32 and images.isfinite().all()


def test_the_benchmark_runs_and_both_implementations_agree(tmp_path):
    script, out = Path(__file__).parent.parent / "scripts" / "benchmark.py", tmp_path / "benchmark.json"
    rows = ["DM", "inner", "table"]
    command = [sys.executable, str(script), "--quick", "--repeats", "1", "--rows", *rows, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    result = json.loads(out.read_text())
    assert result["error"] < 1e-10 and list(result["rows"]) == rows


PAGE_FAULTS = """
import resource, sys, torch
from concurrent.futures import ThreadPoolExecutor
from fairdd.core.parallel import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
with ThreadPoolExecutor(1) as worker:             # a thread, as chunks are processed in
    for _ in range(20):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        worker.submit(lambda: [torch.empty(2**20).fill_(1) for _ in range(8)] and None).result()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[10:]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_freed_blocks_are_used_again_without_page_faults():
    kept, returned = (int(subprocess.run([sys.executable, "-c", PAGE_FAULTS, word], capture_output=True, check=True,
                                         text=True).stdout) for word in ("keep", "return"))
    assert 5 * kept < returned
