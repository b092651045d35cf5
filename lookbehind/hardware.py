"""Where a network trains, and in which form it is fastest there."""

import os
import shutil
from dataclasses import dataclass

import torch
from torch import nn

DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class Hardware:
    """A device, and what is switched on there.

    `autocast` is torch.bfloat16 for mixed precision, or None. `channels_last` stores images and
    convolution weights as (N, H, W, C), `compile` hands the network to `torch.compile`.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False

    def place(self, model: nn.Module) -> nn.Module:
        """Move `model` there, in place; returns it. Its `state_dict` keeps its names."""
        model.to(self.device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile:
            model.compile()
        return model

    def __str__(self) -> str:
        names = ["bf16"] if self.autocast else []
        names += [name for name in ("channels_last", "compile") if getattr(self, name)]
        return ", ".join([_device_name(self.device), *names])


def choose_hardware(
    device: str = "auto",
    *,
    bf16: bool | None = None,
    channels_last: bool | None = None,
    compile: bool = False,
) -> Hardware:
    """The hardware called `device`: "auto" (CUDA, else Apple's MPS, else the CPU), or one of them.

    None means: on where it is faster. bf16 is on where a CUDA device computes with it (compute
    capability ≥ 8.0); CPUs emulate it or gain nothing on networks of this size. channels_last is
    on for the CPU (ResNet-8 at 32 x 32: about 1.4 times faster, see `bench_epoch.py`) and for CUDA,
    whose tensor cores take that layout; MPS takes the other.

    Raises ValueError for an unknown or missing device, or where `compile` is asked for and no C++
    compiler is found (named in CXX, or `c++` or `g++`).
    """
    chosen = _device(device)
    cuda = chosen.type == "cuda"
    if bf16 is None:
        bf16 = cuda and torch.cuda.get_device_capability(chosen) >= (8, 0)
    if channels_last is None:
        channels_last = chosen.type != "mps"
    if compile and not has_compiler():
        raise ValueError("compile needs a C++ compiler: none found in CXX, nor as c++ or g++")
    return Hardware(chosen, torch.bfloat16 if bf16 else None, channels_last, compile)


def has_compiler() -> bool:
    """Whether `torch.compile` will find a C++ compiler on this machine."""
    names = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++"))
    return any(shutil.which(name) for name in names)


def _device(name: str) -> torch.device:
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    if not there.get(kind, True):
        raise ValueError(f"device is {name!r}, but this machine has no usable {kind} device")
    return torch.device(name)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": "CPU", "mps": "Apple GPU (MPS)"}.get(device.type, str(device))
