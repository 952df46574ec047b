"""Every network accepts every image size, depends on its input, and trains all its weights."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from networks import EVAL_POOLS, NETWORKS, ConvNet, MeanPool2d, get_eval_pool, get_network, network_factory

every_name = pytest.mark.parametrize("name", NETWORKS)
gray_and_color = pytest.mark.parametrize("in_channels", [1, 3])


def make(name, in_channels=3, size=None, seed=0):
    """Return a network with the weights of a seed, and two random images for it (of 32 pixels, or of the fewest)."""
    size = size or (64 if name == "ConvNetD6" else 32)
    torch.manual_seed(seed)
    return get_network(name, in_channels, 10, (size, size)), torch.randn(2, in_channels, size, size)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@every_name
@gray_and_color
@pytest.mark.parametrize("size", [16, 28, 32, 64, 96])
def test_every_network_accepts_every_image_size(name, in_channels, size):
    if name in ("ConvNetD5", "ConvNetD6") and size < 64:
        with pytest.raises(ValueError, match="at least"):
            get_network("ConvNetD6", in_channels, 10, (size, size))
        return
    assert_accepts(name, in_channels, size)


@pytest.mark.parametrize("name", ["ConvNetD4", "ConvNetD5W32", "ConvNetD6W32", "AlexNet", "VGG11", "ResNet18"])
@pytest.mark.parametrize("size", [128, 224])
def test_large_images_fit_every_kind_of_network(name, size):
    assert_accepts(name, 3, size)
    if name.startswith("ConvNetD"):
        depth = int(name[8])
        assert get_network(name, 3, 10, (size, size)).classifier.in_features % (size >> depth) ** 2 == 0


def assert_accepts(name, in_channels, size):
    """Assert that the outputs of a network have their shapes and depend on its input."""
    net, images = make(name, in_channels, size)
    with torch.no_grad():
        embedding = net.embed(images)
        assert embedding.shape == (2, net.classifier.in_features)
        logits = net(images)
        assert logits.shape == (2, 10)
        assert torch.equal(logits, net.classifier(embedding))
    assert (embedding[0] - embedding[1]).abs().max() > 0.01 * embedding.abs().max(), "it depends on the image"


@every_name
@gray_and_color
@pytest.mark.parametrize("size", [16, 28, 32])
def test_gradients_reach_every_weight_and_the_image(name, in_channels, size):
    size *= {"ConvNetD5": 2, "ConvNetD6": 4}.get(name, 1)
    net, images = make(name, in_channels, size)
    F.cross_entropy(net(images.requires_grad_()), torch.tensor([0, 1])).backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    for parameter in net.parameters():
        assert parameter.grad is not None
        if parameter.ndim > 1:  # a bias in front of a norm has gradient 0
            assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_mean_pooling_and_its_gradient_equal_average_pooling(size):
    maps = torch.randn(3, 5, *size, dtype=torch.float64, requires_grad=True)
    pooled, expected = MeanPool2d()(maps), nn.AvgPool2d(2)(maps)
    grad_output = torch.randn_like(expected)
    gradients = [torch.autograd.grad(output, maps, grad_output)[0] for output in (pooled, expected)]
    assert torch.allclose(pooled, expected, rtol=1e-14) and torch.allclose(*gradients, rtol=1e-14)


@pytest.mark.parametrize("name", [*EVAL_POOLS["M"], *EVAL_POOLS["B"], *EVAL_POOLS["A"]])
def test_gradients_of_gradients_reach_the_image(name):
    net, images = make(name, size=16)
    images.requires_grad_()
    loss = F.cross_entropy(net(images), torch.tensor([0, 1]))
    gradients = torch.autograd.grad(loss, net.parameters(), create_graph=True)
    sum(gradient.square().sum() for gradient in gradients).backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "features", "parameters"),
    [
        ("MLP", 128, 3072 * 128 + 128 + 128 * 128 + 128 + 1290),
        ("LeNet", 84, 62_006),
        ("AlexNet", 192 * 4 * 4, 1_872_202),
        ("VGG11BN", 512, 9_231_114),
        ("ResNet18BN", 512, 11_173_962),
        ("ResNet18BN_AP", 512 * 4 * 4, 11_173_962 + 10 * 512 * 15),
        ("ConvNet", 128 * 4 * 4, 320_010),
        ("ConvNetNN", 128 * 4 * 4, 320_010 - 3 * 2 * 128),
        ("ConvNetLN", 128 * 4 * 4, 320_010 - 3 * 2 * 128 + 2 * 128 * (32 * 32 + 16 * 16 + 8 * 8)),
    ],
)
def test_at_32_pixels_the_number_of_parameters_is_that_of_the_dc_code(name, features, parameters):
    net, _ = make(name)
    assert net.classifier.in_features == features
    assert count(net) == parameters


@pytest.mark.parametrize("name", EVAL_POOLS["M"][1:-1])
def test_gray_28_pixel_images_are_padded_to_32(name):
    gray, small = make(name, in_channels=1, size=28)
    large, _ = make(name, in_channels=1, size=32)
    assert torch.equal(gray(small), large(F.pad(small, (2, 2, 2, 2))))


@pytest.mark.parametrize("name", [*EVAL_POOLS["M"], "ResNet18BN_AP", "ConvNetLN"])
def test_images_need_not_be_square(name):
    net = get_network(name, 3, 10, im_size=(32, 48))
    assert net(torch.randn(2, 3, 32, 48)).shape == (2, 10)


@every_name
def test_channels_last_images_give_the_same_logits(name):
    net, images = make(name)
    expected = net(images)
    net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(images), expected, rtol=1e-3, atol=1e-4)


@every_name
def test_a_network_has_batch_norm_if_its_name_says_so(name):
    net, _ = make(name)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == ("BN" in name)


@every_name
def test_weights_depend_on_the_global_seed_only(name):
    first, second, other = (torch.cat([p.flatten() for p in make(name, seed=s)[0].parameters()]) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "size", "minimum"), [("ConvNetD4", 8, 16), ("LeNet", 14, 16), ("AlexNet", 7, 8), ("ResNet18", 12, 16)]
)
def test_images_too_small_for_a_network_are_refused_with_the_minimum_size(name, size, minimum):
    with pytest.raises(ValueError, match=f"at least {minimum} x {minimum} pixels.* at {size} x {size}"):
        get_network(name, 3, 10, (size, size))


def test_a_network_accepts_images_of_its_minimum_size():
    for name, size in [("ConvNetD4", 16), ("ConvNetD1", 2), ("ConvNetNP", 2), ("VGG11", 2), ("AlexNet", 8)]:
        net, images = make(name, size=size)
        assert net.embed(images).std(0).max() > 0


def test_suffixes_of_a_convnet_combine():
    combined = network_factory("ConvNetD2W32ASMPGN")(3, 10, im_size=(16, 16))
    expected = ConvNet(3, 10, 32, 2, "sigmoid", "groupnorm", "maxpooling", (16, 16))
    assert str(combined) == str(expected)


@pytest.mark.parametrize("name", ["ConvNetW32D2", "ConvNetD1D2", "ConvNetD9", "convnet", "VGG19", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown network .*MLP, LeNet, .*ConvNetW32"):
        get_network(name, 3, 10)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown norm 'batch'; known: none, batchnorm"):
        ConvNet(3, 10, net_norm="batch")


def test_eval_pools_name_known_networks():
    names = [name for pool in EVAL_POOLS.values() for name in pool]
    assert set(names) <= set(NETWORKS)
    assert [len(pool) for pool in EVAL_POOLS.values()] == [6, 5, 4, 4, 4, 3, 5]


@pytest.mark.parametrize(
    ("model", "model_without_bn"),
    [
        ("ConvNet", "ConvNet"),
        ("ConvNetBN", "ConvNet"),
        ("ConvNetD2BN", "ConvNetD2"),
        ("ConvNetASwishBN", "ConvNetASwish"),
        ("ResNet18BN_AP", "ResNet18"),
    ],
)
def test_mode_s_drops_batch_norm(model, model_without_bn):
    assert get_eval_pool("S", model) == [model_without_bn]
    assert get_eval_pool("SS", model) == [model]
    assert network_factory(model_without_bn)


def test_changing_a_returned_eval_pool_changes_no_other():
    get_eval_pool("W", "ConvNet").clear()
    assert get_eval_pool("W", "ConvNet") == ["ConvNetW32", "ConvNetW64", "ConvNetW128", "ConvNetW256"]


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown eval_mode 'X'; known: S, SS, M, B, W, D, A, P, N"):
        get_eval_pool("X", "ConvNet")
