"""Networks for small images: ResNets and Wide-ResNets for CIFAR, and small ones for a CPU.

All take images (N, C, H, W), H and W ≥ 8, and give logits (N, classes). The convolutional ones end
in a global average, so the same weights serve every size. Parts are named as in torchvision.
Weights come from torch's global generator: for convolutions N(0, 2 / (outputs × kernel area)) (He
et al. 2015, arXiv 1502.01852, "fan out"), for linear layers torch's default.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from lookbehind.checks import one_of, whole


def conv(kernel: int, inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps H × W at stride 1; no bias: a normalization follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a projection where the shape changes (option B of He et al. 2016)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(1, inputs, outputs, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with F of two 3×3 convolutions (He et al., arXiv 1512.03385)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, inputs, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(3, width, width), nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """relu(F(x) + shortcut(x)) with F of 1×1, 3×3 (its stride, as in torchvision) and 1×1
    convolutions, 4 × width channels out."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = conv(1, inputs, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(3, width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(1, width, outputs), nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.downsample(x))


class WideBlock(nn.Module):
    """F(x) + shortcut, normalization and ReLU before each convolution (arXiv 1605.07146). Where the
    shape changes the shortcut is a 1×1 convolution of relu(bn1(x)), as in their code."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(3, inputs, width, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(3, width, width)
        same = stride == 1 and inputs == width
        self.downsample = None if same else conv(1, inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(x))
        past = x if self.downsample is None else self.downsample(y)
        return self.conv2(relu(self.bn2(self.conv1(y)))) + past


Block = BasicBlock | Bottleneck | WideBlock
Layers = dict[str, nn.Module]


def stages(block: type[Block], depths: Sequence[int], widths: Sequence[int], inputs: int) -> Layers:
    """layer1, layer2, … of `depths` blocks; each layer but the first halves H and W."""
    layers: Layers = {}
    for depth, width in zip(depths, widths, strict=True):
        blocks = [block(inputs, width, 2 if layers else 1)]
        inputs = width * block.expansion
        blocks += [block(inputs, width) for _ in range(depth - 1)]
        layers[f"layer{len(layers) + 1}"] = nn.Sequential(*blocks)
    return layers


def network(width: int, classes: int, **layers: nn.Module) -> nn.Sequential:
    """The layers one after the other, under their names; the average over all positions of their
    `width` channels, then a linear layer. Convolutions are initialized as He et al."""
    end = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    model = nn.Sequential(OrderedDict(layers | end, fc=nn.Linear(width, classes)))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def resnet(
    block: type[Block], depths: Sequence[int], channels: int = 3, classes: int = 10, *,
    width: int = 64, stem_stride: int = 1,
) -> nn.Sequential:  # fmt: skip
    """A ResNet for small images: a 3×3 stem and no max-pool in front of the stages.

    These have `depths` blocks and width, 2 width, 4 width, … channels (He et al., section 4.2).
    `stem_stride=2` halves H and W in front of them: about a quarter of the time.
    """
    widths = [width * 2**i for i in range(len(depths))]
    stem = {"conv1": conv(3, channels, width, stem_stride), "bn1": nn.BatchNorm2d(width)}
    blocks = stages(block, depths, widths, width)
    return network(widths[-1] * block.expansion, classes, **stem, relu=nn.ReLU(), **blocks)


resnet8 = partial(resnet, BasicBlock, (1, 1, 1), width=16)
resnet20 = partial(resnet, BasicBlock, (3, 3, 3), width=16)


def wide_resnet(depth: int, widen: int, channels: int, classes: int) -> nn.Sequential:
    """WRN-depth-widen without dropout (Zagoruyko & Komodakis 2016, arXiv 1605.07146, table 1)."""
    widths = [16 * widen, 32 * widen, 64 * widen]
    stem, blocks = conv(3, channels, 16), stages(WideBlock, [(depth - 4) // 6] * 3, widths, 16)
    end = {"bn1": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU()}
    return network(widths[-1], classes, conv1=stem, **blocks, **end)


def tiny_cnn(channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Three 3×3 convolutions to 16, 24, 32 channels: 10,986 parameters for the digits."""
    layers: Layers = {}
    for i, (inputs, width, stride) in enumerate([(channels, 16, 1), (16, 24, 2), (24, 32, 2)], 1):
        layers[f"conv{i}"] = conv(3, inputs, width, stride)
        layers |= {f"bn{i}": nn.BatchNorm2d(width), f"relu{i}": nn.ReLU()}
    return network(32, classes, **layers)


def mlp(channels: int = 3, classes: int = 10, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """C·H·W - 64 - 64 - classes with ReLU; unlike the others it takes images of one size only."""
    layers = {"flatten": nn.Flatten(), "fc1": nn.Linear(channels * size[0] * size[1], 64)}
    layers |= {"relu1": nn.ReLU(), "fc2": nn.Linear(64, 64), "relu2": nn.ReLU()}
    return nn.Sequential(OrderedDict(layers, fc3=nn.Linear(64, classes)))


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "tiny-cnn": tiny_cnn,
    "micro-resnet8": partial(resnet8, stem_stride=2),
    "resnet8": resnet8,  # 78,042 parameters
    "resnet20": resnet20,  # 272,474, 2,752 of them in projections
    "resnet18": partial(resnet, BasicBlock, (2, 2, 2, 2)),  # 11,173,962
    "resnet34": partial(resnet, BasicBlock, (3, 4, 6, 3)),  # 21,282,122, the paper's
    "resnet50": partial(resnet, Bottleneck, (3, 4, 6, 3)),  # 23,520,842
    "wrn28-2": partial(wide_resnet, 28, 2),  # 1,467,610
    "wrn28-10": partial(wide_resnet, 28, 10),  # 36,479,194
}


def make_model(
    name: str, *, channels: int = 3, classes: int = 10, size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """The network called `name` for images of `channels` × H × W, `size` = (H, W).

    Raises ValueError for a name that isn't one of `MODELS`, channels that are neither 1 nor 3,
    fewer than 2 classes, or a side under 8 pixels; TypeError for classes that are no int.
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    one_of("channels", channels, 1, 3)
    whole("classes", classes, 2)
    sides = size if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(type(side) is int and side >= 8 for side in sides):
        raise ValueError(f"size must be (height, width), two ints ≥ 8, got {size!r}")
    options = {"size": size} if name == "mlp" else {}
    return MODELS[name](channels=channels, classes=classes, **options)
