"""Networks against torchvision's, functional transcriptions, known and closed-form counts."""

import pytest
import torch
from problems import identical
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, cross_entropy, linear, relu

from lookbehind import param_groups
from lookbehind.train import MODELS, make_model
from lookbehind.train.models import resnet8, resnet20

SMALL = ("tiny-cnn", "resnet8", "resnet20")
CONVOLUTIONAL = tuple(name for name in MODELS if name != "mlp")
SIZES = [(8, 8), (9, 9), (28, 28), (32, 32), (33, 33), (64, 64), (8, 13)]

# Of CIFAR-10, 32 × 32 × 3: as published, or as widely used code has them.
KNOWN = {
    "resnet20": 272_474,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "wrn28-2": 1_467_610,
    "wrn28-10": 36_479_194,
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def basic(depth, w, channels, classes):
    """Parameters of `depth` = (n_1, n_2, …) basic blocks of width w, 2w, …, two a batch norm."""
    total = 9 * channels * w + 2 * w + (w << len(depth) - 1) * classes + classes
    for i, n in enumerate(depth):
        m = w << i
        total += n * (2 * 9 * m * m + 4 * m)
        if i:  # the first convolution has half the inputs, and there is a projection
            total += -9 * m * m // 2 + m * m // 2 + 2 * m
    return total


def bottleneck(depth, w, channels, classes):
    total = 9 * channels * w + 2 * w + 4 * (w << len(depth) - 1) * classes + classes
    for i, n in enumerate(depth):
        m, inputs = w << i, 4 * (w << i - 1) if i else w
        total += n * (4 * m * m + 9 * m * m + 4 * m * m + 2 * (m + m + 4 * m))
        total += inputs * m - 4 * m * m + inputs * 4 * m + 2 * 4 * m
    return total


def wide(n, k, channels, classes):
    total = 9 * channels * 16 + 2 * 64 * k + 64 * k * classes + classes
    for m, inputs in ((16 * k, 16), (32 * k, 16 * k), (64 * k, 32 * k)):
        total += n * (2 * 9 * m * m + 4 * m)
        total += (9 + 1) * inputs * m - 9 * m * m + 2 * inputs - 2 * m
    return total


def plain(widths, channels, classes):
    pairs = zip((channels, *widths), widths, strict=False)
    return sum(9 * n * m + 2 * m for n, m in pairs) + (widths[-1] + 1) * classes


CLOSED = {
    "mlp": lambda c, n: (32 * 32 * c + 1) * 64 + 65 * 64 + 65 * n,
    "tiny-cnn": lambda c, n: plain((16, 24, 32), c, n),
    "micro-resnet8": lambda c, n: basic((1, 1, 1), 16, c, n),
    "resnet8": lambda c, n: basic((1, 1, 1), 16, c, n),
    "resnet20": lambda c, n: basic((3, 3, 3), 16, c, n),
    "resnet18": lambda c, n: basic((2, 2, 2, 2), 64, c, n),
    "resnet34": lambda c, n: basic((3, 4, 6, 3), 64, c, n),
    "resnet50": lambda c, n: bottleneck((3, 4, 6, 3), 64, c, n),
    "wrn28-2": lambda c, n: wide(4, 2, c, n),
    "wrn28-10": lambda c, n: wide(4, 10, c, n),
}


@pytest.mark.parametrize("name", KNOWN)
def test_as_many_parameters_as_published(name):
    with torch.device("meta"):
        assert count(make_model(name)) == KNOWN[name]


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 10), (3, 100)])
@pytest.mark.parametrize("name", MODELS)
def test_as_many_parameters_as_the_closed_form(name, channels, classes):
    with torch.device("meta"):
        model = make_model(name, channels=channels, classes=classes)
    assert count(model) == CLOSED[name](channels, classes)


def test_a_width_counts_as_the_closed_form():
    assert count(resnet8(width=5, stem_stride=2)) == basic((1, 1, 1), 5, 3, 10)
    assert count(resnet20(1, 7, width=4)) == basic((3, 3, 3), 4, 1, 7)


def randomized(model, seed=0):
    """Norms' scales, shifts and running statistics that differ, so that no mix-up hides."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_equals_torchvision_with_another_stem(name, training):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=10)
        theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        theirs.maxpool = torch.nn.Identity()
    ours = randomized(make_model(name))
    theirs.load_state_dict({n: v.clone() for n, v in ours.state_dict().items()}, assign=True)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        out, expected = ours.train(training)(x), theirs.train(training)(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert expected.std() > 0.01 and list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def norm(w, name, x):
    return batch_norm(
        x,
        w[f"{name}.running_mean"],
        w[f"{name}.running_var"],
        w[f"{name}.weight"],
        w[f"{name}.bias"],
    )


def transcribed_resnet(w, x, stem_stride):
    """He et al. 2016, section 4.2 and option B, over a state dict, in evaluation mode."""
    x = relu(norm(w, "bn1", conv2d(x, w["conv1.weight"], None, stem_stride, 1)))
    for at in dict.fromkeys(name[:8] for name in w if name.startswith("layer")):
        stride = 2 if at in ("layer2.0", "layer3.0") else 1
        y = relu(norm(w, f"{at}.bn1", conv2d(x, w[f"{at}.conv1.weight"], None, stride, 1)))
        y = norm(w, f"{at}.bn2", conv2d(y, w[f"{at}.conv2.weight"], None, 1, 1))
        if stride == 2:
            x = norm(w, f"{at}.downsample.1", conv2d(x, w[f"{at}.downsample.0.weight"], None, 2))
        x = relu(x + y)
    return linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])


def transcribed_wide_resnet(w, x):
    """Zagoruyko & Komodakis 2016, over a state dict, in evaluation mode."""
    x = conv2d(x, w["conv1.weight"], None, 1, 1)
    for at in dict.fromkeys(name[:8] for name in w if name.startswith("layer")):
        stride = 2 if at in ("layer2.0", "layer3.0") else 1
        a = relu(norm(w, f"{at}.bn1", x))
        if at.endswith("0"):
            x = conv2d(a, w[f"{at}.downsample.weight"], None, stride)
        a = relu(norm(w, f"{at}.bn2", conv2d(a, w[f"{at}.conv1.weight"], None, stride, 1)))
        x = x + conv2d(a, w[f"{at}.conv2.weight"], None, 1, 1)
    x = relu(norm(w, "bn1", x))
    return linear(avg_pool2d(x, x.shape[-2:]).flatten(1), w["fc.weight"], w["fc.bias"])


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("make", [resnet8, resnet20])
def test_the_small_resnets_are_those_of_the_paper(make, stem_stride):
    model = randomized(make(width=6, stem_stride=stem_stride)).double().eval()
    x = torch.randn(3, 3, 17, 12, dtype=torch.float64)
    expected = transcribed_resnet(model.state_dict(), x, stem_stride)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_the_wide_resnet_is_that_of_the_paper():
    model = randomized(make_model("wrn28-2")).double().eval()
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    expected = transcribed_wide_resnet(model.state_dict(), x)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_same_weights_take_images_of_any_size(name, channels):
    with torch.device("cpu" if name in SMALL else "meta"):
        model = make_model(name, channels=channels, classes=7)
        for size in SIZES:
            x = torch.randn(2, channels, *size)
            assert model.train()(x).shape == (2, 7)
            assert model.eval()(x[:1]).shape == (1, 7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_mlp_takes_the_size_that_it_is_made_for(size, channels):
    model = make_model("mlp", channels=channels, classes=7, size=size)
    assert model(torch.randn(2, channels, *size)).shape == (2, 7)
    assert count(model) == (channels * size[0] * size[1] + 1) * 64 + 65 * 64 + 65 * 7


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wrn28-2"])
def test_one_image_of_eight_pixels_evaluates(name):
    with torch.no_grad():
        out = make_model(name).eval()(torch.randn(1, 3, 8, 8))
    assert out.isfinite().all() and out.std() > 0


@pytest.mark.parametrize("name", ["mlp", *SMALL, "resnet18", "resnet50", "wrn28-2"])
def test_the_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = make_model(name, size=(16, 16))
    cross_entropy(model(torch.randn(8, 3, 16, 16)), torch.arange(8)).backward()
    for at, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, at


@pytest.mark.parametrize("name", ["mlp", *SMALL, "wrn28-2"])
def test_the_global_seed_decides_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return list(make_model(name).parameters())

    assert identical(weights(0), weights(0))
    assert not identical(weights(0), weights(1))


@pytest.mark.parametrize("name", CONVOLUTIONAL[:-1])
def test_convolutions_start_as_he_et_al(name):
    torch.manual_seed(0)
    for at, p in make_model(name).named_parameters():
        if p.ndim == 4:
            z = p.detach() * (p[:, 0].numel() / 2) ** 0.5  # N(0, 1)
            spread = 5 / p.numel() ** 0.5
            assert abs(z.mean()) < spread and abs(z.var() - 1) < spread * 2**0.5, at
            if p.numel() > 1000:  # normal, not uniform: the fourth moment is 3, not 1.8
                assert 2.2 < z.pow(4).mean() / z.var() ** 2 < 4, at


@pytest.mark.parametrize("name", [*SMALL, "resnet18", "resnet50", "wrn28-2"])
def test_channels_last_gives_the_same(name):
    torch.manual_seed(0)
    model, x = make_model(name), torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        out = model(x)
        model.to(memory_format=torch.channels_last)
        last = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, out, rtol=1e-4, atol=1e-4 * float(out.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_asam_scales_what_the_official_code_scales(name):
    """`param_groups` goes by the names: everything but the biases is scaled."""
    with torch.device("meta"):
        model = make_model(name)
    scaled, rest = param_groups(model)
    biases = {id(p) for at, p in model.named_parameters() if at.endswith("bias")}
    assert {id(p) for p in rest["params"]} == biases
    assert len(scaled["params"]) + len(biases) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "resnet9"}, ValueError, "name must be one of mlp, .*wrn28-10, got 'resnet9'"),
        ({"channels": 2}, ValueError, "channels must be 1 or 3, got 2"),
        ({"channels": "3"}, TypeError, "channels must be 1 or 3, got '3'"),
        ({"channels": True}, TypeError, "channels must be 1 or 3, got True"),
        ({"channels": 3.0}, TypeError, r"channels must be 1 or 3, got 3\.0"),
        ({"classes": 1}, ValueError, "classes must be an int ≥ 2, got 1"),
        ({"classes": True}, TypeError, "classes must be an int ≥ 2, got True"),
        ({"classes": 10.0}, TypeError, "classes must be an int ≥ 2, got 10.0"),
        ({"size": (32, 7)}, ValueError, r"size must be \(height, width\).* ≥ 8, got \(32, 7\)"),
        ({"size": (32, 8.5)}, TypeError, r"size must be \(height, width\).* got \(32, 8.5\)"),
        ({"size": 32}, TypeError, r"size must be \(height, width\).* got 32"),
        ({"size": (8, 8, 8)}, ValueError, r"size must be \(height, width\).* got \(8, 8, 8\)"),
        ({"size": ()}, ValueError, r"size must be \(height, width\).* got \(\)"),
        ({"size": "32"}, TypeError, r"size must be \(height, width\).* got '32'"),
    ],
)
def test_a_bad_argument_is_named(options, error, message):
    with pytest.raises(error, match=message):
        make_model(**{"name": "resnet8", **options})


def test_a_bad_width_or_stride_is_named():
    with pytest.raises(ValueError, match="width must be an int ≥ 1, got 0"):
        resnet8(width=0)
    with pytest.raises(TypeError, match=r"width must be an int ≥ 1, got 1\.5"):
        resnet20(width=1.5)
    with pytest.raises(ValueError, match="stem_stride must be an int ≥ 1, got -1"):
        resnet20(stem_stride=-1)
