"""Several processes that train one network, each on its share of every minibatch.

`torchrun`, `accelerate launch` or `accelerate.notebook_launcher` starts them. Each draws the same
whole minibatches and takes its share of their images, and gradients are averaged through torch's
`DistributedDataParallel`: the weights are those of one process, but for rounding.

    fit(model, optimizer, batches, ..., setup=Setup(ranks=Ranks()))
"""

import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lookbehind.scores import Minibatch, changed, examples, tensors_of

T = TypeVar("T")


class Alone:
    """The processes that train one network: one here, several in `Ranks`."""

    world = 1  # how many they are
    main = True  # whether this is the one that writes and speaks

    def network(self, model: nn.Module) -> nn.Module:
        """`model` for forward passes, after whose backward pass all have the same gradients."""
        return model

    def apart(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Inside, each process keeps the gradient of its own share."""
        return nullcontext()

    def share(self, minibatch: Minibatch) -> tuple[Minibatch, int]:
        """This process's part of a minibatch, and how many images of it count."""
        return minibatch, examples(minibatch)

    def backward(self, loss: Tensor, share: float) -> Tensor:
        """From the loss of this process's share of the minibatch; returns the loss of the whole."""
        loss.sum().backward()  # one loss, or one a member
        return loss

    def total(self, values: Tensor) -> Tensor:
        """Their sum over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return flag

    def once(self, do: Callable[[], T]) -> T:
        """What `do()` returns, or raises, at the main process; the others wait for it."""
        return do()

    def leave(self) -> None:
        """The end of the job: the connections to the others are closed."""


ALONE = Alone()


class Ranks(Alone):
    """The processes of a job, seen from one of them: number `rank` of `world`, on `device`.

    With n_r of n images and the mean loss L_r in share r of a minibatch, Σ_r n_r L_r / n is the
    loss of the whole, and each process gets its gradient.

    BatchNorm normalizes each share by its own mean and variance (on GPUs
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` takes those of the whole minibatch), and
    the running statistics are those of process 0, sent to the others before each forward pass.

    `cpu` trains on CPUs (gloo) even where there are GPUs. Raises RuntimeError where this process
    was not started as one of several.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        import torch.distributed.nn  # imported later, its defaults would keep the group for ever
        from accelerate import PartialState

        state = self._state = PartialState(cpu=cpu or not torch.cuda.is_available())
        if state.distributed_type not in ("MULTI_CPU", "MULTI_GPU"):
            starters = "torchrun, accelerate launch or notebook_launcher"
            raise RuntimeError(f"Ranks takes processes of {starters}, got {state.distributed_type}")
        self.rank, self.world, self.device = state.process_index, state.num_processes, state.device
        self.main = self.rank == 0

    def network(self, model: nn.Module) -> nn.Module:
        if self.world > 1 and hasattr(model, "members"):
            raise ValueError("model must be one network to be shared by processes, no ensemble")
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(model, device_ids=devices)

    def apart(self, network: Any) -> AbstractContextManager[Any]:
        return network.no_sync()

    def share(self, minibatch: Minibatch) -> tuple[Minibatch, int]:
        count = examples(minibatch)
        for shape in (tuple(tensor.shape) for tensor in tensors_of(minibatch)):
            if shape[:1] != (count,):
                allowed = "labels must have shape (B,) to be shared by processes, and all else in a"
                raise ValueError(f"{allowed} minibatch B = {count} as first dimension, got {shape}")
        mine = changed(minibatch, lambda tensor: tensor.tensor_split(self.world)[self.rank])
        # all must take part in every gradient: without an image, by one that counts for nothing
        own = examples(mine)
        return (mine if own else changed(minibatch, lambda tensor: tensor[:1])), own

    def backward(self, loss: Tensor, share: float) -> Tensor:
        (loss * (share * self.world)).backward()  # the processes' gradients are averaged
        return self.total(loss.detach() * share)

    def total(self, values: Tensor) -> Tensor:
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        return bool(self.total(torch.tensor(float(flag), device=self.device)))

    def once(self, do: Callable[[], T]) -> T:
        said: list[Any] = [None, None]
        if self.main:
            try:
                said[0] = do()
            except Exception as error:
                said[1] = error
        torch.distributed.broadcast_object_list(said)
        result, failure = said
        if failure is not None:
            raise failure
        return result

    def leave(self) -> None:
        # Gloo's threads end with the last reference to the group, and must before the interpreter:
        # one that then lets go of a tensor asks for the GIL, which aborts the process.
        gc.collect()  # DistributedDataParallel has one, in a cycle
        self._state.destroy_process_group()


def join(device: str) -> tuple[Alone, str]:
    """The processes that train together, where a launcher has started several; the device of this.

    Raises ValueError where WORLD_SIZE, which it sets, is no int ≥ 1, or for a single device.
    """
    given = os.environ.get("WORLD_SIZE", "1").strip()
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"WORLD_SIZE must be an int ≥ 1, as launchers set it, got {given!r}")
    if int(given) == 1:
        return ALONE, device
    if device not in ("auto", "cuda", "cpu"):
        raise ValueError(f"device of several processes must be auto, cuda or cpu, got {device!r}")
    ranks = Ranks(cpu=device == "cpu")
    return ranks, ranks.device.type  # the current one of them is its own
