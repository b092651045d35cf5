"""`hardware`: the device, and what is switched on there."""

import copy
import platform
import resource
from dataclasses import replace

import forks
import pytest
import torch
from torch import nn
from training import same

from lookbehind.train import Hardware, Recipe, make_model
from lookbehind.train.hardware import choose_hardware, has_compiler, keep_freed_memory

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def pretend(monkeypatch, cuda=0, mps=False, old=False):
    """A machine with so many CUDA devices, of an old kind or not, with or without Apple's."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    capability = (7, 5) if old else (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("machine", "asked", "found"),
    [
        ({"cuda": 1, "mps": True}, {}, ("cuda", BF16, True)),
        ({"mps": True}, {}, ("mps", None, False)),
        ({}, {}, ("cpu", None, True)),
        ({"cuda": 1, "old": True}, {}, ("cuda", None, True)),
        ({"cuda": 2, "mps": True}, {"device": "cuda:1"}, ("cuda:1", BF16, True)),
        ({"cuda": 2, "mps": True}, {"device": "cpu"}, ("cpu", None, True)),
        ({}, {"bf16": True, "channels_last": False}, ("cpu", BF16, False)),
        ({"cuda": 1}, {"bf16": False, "channels_last": False}, ("cuda", None, False)),
    ],
)
def test_auto_is_the_fastest_there_is_and_a_choice_wins(machine, asked, found, monkeypatch):
    pretend(monkeypatch, **machine)
    device, *form = found
    assert choose_hardware(**asked) == Hardware(torch.device(device), *form)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "auto:1", "", "cuda", "cuda:2", "mps"])
def test_an_unknown_or_missing_device_is_an_error(name, monkeypatch):
    pretend(monkeypatch, cuda=2 if name == "cuda:2" else 0)
    there = "auto, cuda, cuda:0, cuda:1, cpu" if name == "cuda:2" else "auto, cpu"
    words = f"device must be one of {there}, as this machine has them, got {name!r}"
    with pytest.raises(ValueError, match=words):
        choose_hardware(name)


def test_compile_needs_a_compiler_that_torch_would_find(monkeypatch, tmp_path):
    """torch._inductor calls CXX, which may hold options, or g++; it doesn't look for c++."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("c++", "other"):
        (tmp_path / name).symlink_to("/bin/sh")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"compile needs a C\+\+ compiler: g\+\+, .* CXX names"):
        choose_hardware("cpu", compile=True)
    for command in ("missing -O2", "", "g++"):
        monkeypatch.setenv("CXX", command)
        assert not has_compiler()
    monkeypatch.setenv("CXX", f"{tmp_path / 'other'} -O2")
    assert has_compiler() and choose_hardware("cpu", compile=True).compile
    monkeypatch.delenv("CXX")
    (tmp_path / "other").rename(tmp_path / "g++")
    assert has_compiler()


def test_place_changes_the_layout_and_compiles_and_keeps_names_and_weights(monkeypatch):
    """A checkpoint of a compiled run is one of the plain network, too."""
    model, compiled = make_model("resnet8"), []
    plain = copy.deepcopy(model)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    placed = Hardware(CPU, channels_last=True, compile=True).place(model)
    assert placed is model and compiled == [model]
    assert same(placed.state_dict(), plain.state_dict())
    convolutions = [m for m in placed.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(placed(images), plain(images), rtol=1e-4, atol=1e-5)


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        some = [torch.ones(2**21) for _ in range(8)]  # 64 MB
        del some
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def kept_memory():
    """What a process of its own does: it keeps its freed memory to its end."""
    first = faults()
    assert keep_freed_memory()
    faults()
    assert faults() < first / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_kept():
    process = forks.start(kept_memory)
    process.join()
    assert process.exitcode == 0


def test_hardware_says_what_it_is(monkeypatch):
    assert str(Hardware(CPU)) == "CPU"
    pretend(monkeypatch, cuda=1, mps=True)
    everything = Hardware(torch.device("cuda"), BF16, True, True)
    assert str(everything) == "A GPU, bf16, channels_last, compile"
    assert "fp16" in str(replace(everything, autocast=torch.float16))
    assert str(choose_hardware("mps")) == "Apple GPU (MPS)"


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_a_recipe_trains_on_a_gpu(compile):
    """Mixed precision, channels_last, and compiled: the loss falls, the weights stay float32."""
    if compile and not has_compiler():
        pytest.skip("no C++ compiler")
    recipe = Recipe(model="resnet8", epochs=5, gradients=None, lr=0.1, rho=0.05)
    outcome = recipe.run(hardware=choose_hardware("cuda", compile=compile))
    losses = [record.loss for record in outcome.history.of("train")]
    assert losses[-1] < 0.7 * losses[0]
    parameter = next(outcome.model.parameters())
    assert (parameter.device.type, parameter.dtype) == ("cuda", torch.float32)


@pytest.mark.gpu
def test_a_recipe_gives_the_same_twice_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    recipe, hardware = Recipe(model="resnet8", epochs=2, gradients=None), choose_hardware("cuda")
    assert recipe.run(hardware=hardware).history == recipe.run(hardware=hardware).history
