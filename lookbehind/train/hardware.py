"""Where a network trains, and in which form it is fastest there."""

import ctypes
import os
import shlex
import shutil
import sys
from dataclasses import astuple, dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Hardware:
    """A device, and what is switched on there: `autocast` as in `Setup`, `channels_last` (images
    and weights of convolutions in memory as N, H, W, C), `compile` (by `torch.compile`)."""

    device: torch.device
    autocast: torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False

    def place(self, model: nn.Module) -> nn.Module:
        """Move `model` there, in place; returns it. Its `state_dict` keeps its names."""
        model.to(self.device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.compile:
            model.compile()
        return model

    def __str__(self) -> str:
        device, names = self.device, {"cpu": "CPU", "mps": "Apple GPU (MPS)"}
        cuda = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if cuda else names.get(device.type, str(device))
        precision = "fp16" if self.autocast == torch.float16 else "bf16"
        switches = zip((precision, "channels_last", "compile"), astuple(self)[1:], strict=True)
        return ", ".join([name, *(switch for switch, on in switches if on)])


def choose_hardware(
    device: str = "auto", *, bf16: bool | None = None, channels_last: bool | None = None,
    compile: bool = False,
) -> Hardware:  # fmt: skip
    """The hardware called `device`: "auto" (CUDA, else Apple's MPS, else the CPU), "cuda:1", ….

    None means: on where it is faster. That is bf16 for CUDA of compute capability ≥ 8.0,
    channels_last for CUDA and the CPU (ResNet-8: about 1.4 times faster, see `bench_epoch.py`).

    Raises ValueError for an unknown or missing device, or for `compile` without a C++ compiler.
    """
    count, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    cuda = ["cuda", *(f"cuda:{i}" for i in range(count))] if count else []
    usable = [*cuda, *["mps"] * mps, "cpu"]  # the fastest first
    if device not in ("auto", *usable):
        allowed = f"one of auto, {', '.join(usable)}, as this machine has them"
        raise ValueError(f"device must be {allowed}, got {device!r}")
    chosen = torch.device(usable[0] if device == "auto" else device)
    if bf16 is None:
        bf16 = chosen.type == "cuda" and torch.cuda.get_device_capability(chosen) >= (8, 0)
    if channels_last is None:
        channels_last = chosen.type != "mps"
    if compile and not has_compiler():
        raise ValueError("compile needs a C++ compiler: g++, clang++ on macOS, or what CXX names")
    return Hardware(chosen, torch.bfloat16 if bf16 else None, channels_last, compile)


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors for the next ones; whether it can.

    glibc gives large blocks back to the system, which clears them when they are asked for again: a
    fifth of the time of a gradient of ResNet-8 on two cores. The memory of the process then stays
    at its peak.
    """
    limits = {-1: 2**31 - 1, -3: 2**25}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(*limit) for limit in limits.items())


def has_compiler() -> bool:
    """Whether `torch.compile` will find a C++ compiler: CXX, else g++ (on macOS clang++)."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    command = shlex.split(os.environ.get("CXX", default))  # may hold options, too
    return shutil.which("".join(command[:1])) is not None
