"""--compile changes the time of a run and nothing else but rounding; without a compiler it is refused at once."""

import pytest
import torch

import main_DM
from fairdd.core import compiled
from fairdd.core.compiled import CompiledNetwork
from fairdd.core.errors import UserError
from fairdd.matching.alignment import per_group_targets
from fairdd.matching.embedding import embedding_loss
from networks import get_network


def test_a_compiled_network_has_the_loss_and_the_gradient_of_the_plain_one_and_is_compiled_once():
    labels = torch.arange(2).repeat_interleave(10)
    real, syn, syn_labels = torch.randn(20, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.arange(2).repeat_interleave(2)
    targets = per_group_targets(labels, torch.arange(20) % 3)
    graphs = []
    for _ in range(3):                  # new networks of one architecture
        net = get_network("ConvNetD1W32", 3, 2, (8, 8)).requires_grad_(False)
        expected = embedding_loss(net, real, syn, syn_labels, targets)
        actual = embedding_loss(CompiledNetwork(net), real, syn, syn_labels, targets)
        for a, b in zip(actual, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs == [graphs[0]] * 3


def test_without_a_compiler_the_flag_is_refused(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs a C"):
        main_DM.parse(["--compile"])
