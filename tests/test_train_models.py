"""Networks against torchvision's, a functional transcription and published counts."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, cross_entropy, linear, relu
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from training import same

from lookbehind import param_groups
from lookbehind.train import MODELS, make_model
from lookbehind.train.models import resnet8, resnet20

SMALL = ("tiny-cnn", "micro-resnet8", "resnet8", "resnet20")

# Of CIFAR-10, 32 × 32 × 3: as published, or as widely used code has them; the others by hand.
COUNTS = {
    "mlp": (32 * 32 * 3 + 1) * 64 + (64 + 1) * 64 + (64 + 1) * 10,
    "tiny-cnn": 9 * (3 * 16 + 16 * 24 + 24 * 32) + 2 * (16 + 24 + 32) + (32 + 1) * 10,
    "micro-resnet8": 78_042, "resnet8": 78_042, "resnet20": 272_474, "resnet18": 11_173_962,
    "resnet34": 21_282_122, "resnet50": 23_520_842, "wrn28-2": 1_467_610, "wrn28-10": 36_479_194,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_as_many_parameters_as_published_and_asam_scales_all_but_the_biases(name):
    """`param_groups` goes by the names, as the official code."""
    with torch.device("meta"):
        model = make_model(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]
    scaled, rest = param_groups(model)
    biases = {id(p) for at, p in model.named_parameters() if at.endswith("bias")}
    assert {id(p) for p in rest["params"]} == biases
    assert len(scaled["params"]) + len(biases) == len(list(model.parameters()))


def randomized(model):
    """Norms' scales, shifts and running statistics that differ, so that no mix-up hides."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("make", "block", "layers", "stride"),
    [
        (partial(make_model, "resnet18"), BasicBlock, (2, 2, 2, 2), 1),
        (partial(make_model, "resnet50"), Bottleneck, (3, 4, 6, 3), 1),
        (partial(resnet8, width=64), BasicBlock, (1, 1, 1), 1),
        (partial(resnet20, width=64, stem_stride=2), BasicBlock, (3, 3, 3), 2),
    ],
)
def test_equals_torchvision_with_another_stem(make, block, layers, stride):
    """The small ones (He et al. 2016, section 4.2, option B) have three stages instead of four."""
    theirs = ResNet(block, [*layers, 1][:4], num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, stride, 1, bias=False), nn.Identity()
    if len(layers) == 3:
        theirs.layer4, theirs.fc = nn.Identity(), nn.Linear(256, 10)
    ours = randomized(make())
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 17, 12)
    for training in (True, False):
        with torch.no_grad():
            out, expected = ours.train(training)(x), theirs.train(training)(x)
        largest = float(expected.abs().max())
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * largest)
        assert expected.std() > 0.01
    torch.testing.assert_close([*ours.buffers()], [*theirs.buffers()], rtol=1e-5, atol=1e-5)


def norm(w, name, x):
    statistics = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return batch_norm(x, *statistics, w[f"{name}.weight"], w[f"{name}.bias"])


def test_the_wide_resnet_is_that_of_the_paper():
    """Zagoruyko & Komodakis 2016, transcribed over a state dict, in evaluation mode."""
    model = randomized(make_model("wrn28-2")).double().eval()
    w, images = model.state_dict(), torch.randn(2, 3, 9, 12, dtype=torch.float64)
    x = conv2d(images, w["conv1.weight"], None, 1, 1)
    for at in dict.fromkeys(name[:8] for name in w if name.startswith("layer")):
        stride = 2 if at in ("layer2.0", "layer3.0") else 1
        a = relu(norm(w, f"{at}.bn1", x))
        if at.endswith("0"):
            x = conv2d(a, w[f"{at}.downsample.weight"], None, stride)
        a = relu(norm(w, f"{at}.bn2", conv2d(a, w[f"{at}.conv1.weight"], None, stride, 1)))
        x = x + conv2d(a, w[f"{at}.conv2.weight"], None, 1, 1)
    x = relu(norm(w, "bn1", x))
    expected = linear(avg_pool2d(x, x.shape[-2:]).flatten(1), w["fc.weight"], w["fc.bias"])
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mlp", *SMALL, "resnet18", "wrn28-2"])
def test_images_of_any_size_are_taken(name):
    """By the same weights, but of the mlp."""
    model = make_model(name, channels=1, classes=7)
    for size in [(8, 8), (28, 28), (33, 13)]:
        if name == "mlp":
            model = make_model(name, channels=1, classes=7, size=size)
        x = torch.randn(2, 1, *size)
        assert model.train()(x).shape == (2, 7)
        assert model.eval()(x[:1]).shape == (1, 7)


@pytest.mark.parametrize("name", ["mlp", *SMALL, "wrn28-2"])
def test_the_seed_decides_the_weights_and_the_gradient_reaches_all(name):
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(make_model(name, size=(16, 16)))
    one, alike, other = models
    assert same(one.state_dict(), alike.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    cross_entropy(one(torch.randn(8, 3, 16, 16)), torch.arange(8)).backward()
    for at, p in one.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, at


@pytest.mark.parametrize("name", [*SMALL, "resnet18", "wrn28-2"])
def test_convolutions_start_as_he_et_al(name):
    torch.manual_seed(0)
    for at, p in make_model(name).named_parameters():
        if p.ndim == 4:
            z = p.detach() * (p[:, 0].numel() / 2) ** 0.5  # N(0, 1)
            spread = 5 / p.numel() ** 0.5
            assert abs(z.mean()) < spread and abs(z.var() - 1) < spread * 2**0.5, at
            if p.numel() > 1000:  # normal, not uniform: the fourth moment is 3, not 1.8
                assert 2.2 < z.pow(4).mean() / z.var() ** 2 < 4, at


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "resnet9"}, ValueError, "name must be one of mlp, .*wrn28-10, got 'resnet9'"),
        ({"channels": 2}, ValueError, "channels must be 1 or 3, got 2"),
        ({"channels": True}, ValueError, "channels must be 1 or 3, got True"),
        ({"classes": 1}, ValueError, "classes must be an int ≥ 2, got 1"),
        ({"size": (32, 7)}, ValueError, r"size must be \(height, width\).* ≥ 8, got \(32, 7\)"),
        ({"size": (32, 8.5)}, ValueError, r"size must be \(height, width\).* got \(32, 8.5\)"),
        ({"size": 32}, ValueError, r"size must be \(height, width\).* got 32"),
        ({"size": (8, 8, 8)}, ValueError, r"size must be \(height, width\).* got \(8, 8, 8\)"),
    ],
)
def test_a_bad_argument_is_named(options, error, message):
    with pytest.raises(error, match=message):
        make_model(**{"name": "resnet8", **options})
