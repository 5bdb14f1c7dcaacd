"""accelerate's side of a process: its device, and agreement among ranks.

One of the few files that know accelerate.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    check_cuda_p2p_ib_support,
)
from torch.nn.parallel import DistributedDataParallel

from relaunch.data_prep.errors import HARDWARE, USAGE, Failure
from relaunch.trainers.cores import physical_cores
from relaunch.trainers.group import devices, memory, stacks
from relaunch.trainers.group.peers import Peers
from relaunch.trainers.group.process import fits


@contextmanager
def repeatable():
    """An operation that has no deterministic kernel on this device becomes Failure 64."""
    try:
        yield
    except RuntimeError as error:
        what, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        fix = "add --no-deterministic (a resumed run may then end with other bits), or choose another --arch"
        raise Failure(USAGE, what + found, fix) from error


@contextmanager
def compilable():
    """What torch.compile cannot do with a model, or on this machine, becomes Failure 69."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise Failure(HARDWARE, f"torch.compile failed: {said}", "leave --compile out") from error


class Runtime:
    """Device, rank and accelerate of this process, and what all ranks decide together."""

    def __init__(self, threads: int | None = None, deterministic=True, timeout: int = 600, apart=False):
        """`timeout`: seconds after which a missing rank ends the others. Else: `settle`, `memory.keep`."""
        self.timeout = timeout
        self.keeps_memory = memory.keep(apart)
        self.unused: list[str] = []  # parameters that a step may give no gradient, as a trial showed
        self.peers = Peers(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), timeout)
        with self.peers.watched(), self.peers.waiting("the rendezvous"), devices.connecting():
            found = devices.find(dict(os.environ))
            cpu = devices.check(dict(os.environ), found)
            if cpu:
                os.environ["ACCELERATE_USE_CPU"] = "true"
            elif any("RTX 40" in name for name in found.names) and not check_cuda_p2p_ib_support():
                for what in ("P2P", "IB"):  # as `accelerate launch` does: without it accelerate gives up
                    os.environ.setdefault(f"NCCL_{what}_DISABLE", "1")
            # NCCL ends the process when its time is up: the flags' group and the thread of `peers` come first
            wait = self.peers.limit if cpu or self.peers.watching else timedelta(seconds=2 * timeout)
            self.accelerator = Accelerator(
                cpu=cpu,
                kwargs_handlers=[
                    DistributedDataParallelKwargs(gradient_as_bucket_view=True),
                    InitProcessGroupKwargs(timeout=wait),
                ],
            )
            if self.accelerator.device.type != (planned := "cpu" if cpu else "cuda"):
                what = f"{planned} was planned, and accelerate chose {self.accelerator.device.type}"
                raise Failure(HARDWARE, what, "see whether nvidia-smi lists the GPUs")
        self.device = self.accelerator.device
        self.settle(threads, deterministic)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.precision = self.accelerator.mixed_precision
        self.main = self.rank == 0
        self.first_here = self.accelerator.is_local_main_process  # on this machine, whose disk may be its own
        if self.world != int(os.environ.get("WORLD_SIZE", 1)):
            raise Failure(HARDWARE, f"{os.environ['WORLD_SIZE']} processes were started and {self.world} met")
        # flags and small objects travel beside the gradients, over sockets: no device waits for them
        with self.peers.watched():
            with self.peers.waiting("new_group"):
                self._group = (
                    dist.new_group(backend="gloo", timeout=self.peers.limit) if self.world > 1 else None
                )
            self.peers.meet(self.broadcast(self.gather(stacks.myself())))
        atexit.register(self.close)  # with its threads alive the process may end in an abort

    @contextmanager
    def watched(self):
        """What fails for want of a rank, a connection, memory or a deterministic kernel becomes a Failure."""
        with (
            self.peers.watched(),
            devices.connecting(),
            repeatable(),
            compilable(),
            fits("raise --grad-accum-steps, which takes the same batch in more parts, or lower --batch-size"),
        ):
            yield

    def settle(self, threads: int | None, deterministic: bool, tf32: str = "conv") -> None:
        """Set what decides the bits: CPU threads; on CUDA whether kernels are deterministic, and --tf32.

        `threads` None: this rank's share of the physical cores. Not after the first matrix product, at which
        cuBLAS reads its variable.
        """
        self.set_threads(threads or max(1, physical_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        if self.device.type == "cuda":
            torch.use_deterministic_algorithms(deterministic)
            # each fresh tensor would be filled, so that what reads it unwritten repeats: nothing here does
            torch.utils.deterministic.fill_uninitialized_memory = False
            torch.backends.cudnn.benchmark = not deterministic  # the fastest kernel, as measured each time
            if deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            with warnings.catch_warnings():  # from 2.9 on torch would like other names, and not for all of it
                warnings.simplefilter("ignore")
                torch.backends.cudnn.allow_tf32 = tf32 != "none"
                torch.set_float32_matmul_precision("high" if tf32 == "all" else "highest")

    def set_threads(self, threads: int) -> None:
        self.threads = threads
        torch.set_num_threads(threads)  # whatever accelerate exported: the count decides the bits

    def agree(self, flag: int) -> int:
        """The largest flag of all ranks."""
        if self.world == 1:
            return flag
        value = torch.tensor([flag])
        with self.peers.waiting("all_reduce of the flags"):
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return int(value)

    def sum(self, values: list[float]) -> list[float]:
        """The sum over ranks, in the order of the ranks."""
        parts = self.broadcast(self.gather(values))
        return [sum(column) for column in zip(*parts)]

    def gather(self, value) -> list | None:
        """Every rank's value, in order, on rank 0; None elsewhere."""
        if self.world == 1:
            return [value]
        parts = [None] * self.world if self.main else None
        with self.peers.waiting("gather"):
            dist.gather_object(value, parts, dst=0, group=self._group)
        return parts

    def broadcast(self, value):
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        box = [value]
        with self.peers.waiting("broadcast"):
            dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def on_rank_0(self, what: Callable):
        """Do something on rank 0 alone; every rank gets its result, or raises its Failure."""
        outcome = None
        if self.main:
            try:
                outcome = (what(), None)
            except Failure as failure:
                outcome = (None, failure)
        return self._settle([self.broadcast(outcome)])[0]

    def on_every_rank(self, what: Callable):
        """Do something on every rank; if any fails, all raise the first Failure rather than wait for it."""
        try:
            outcome = (what(), None)
        except Failure as failure:
            outcome = (None, failure)
        failures = self.broadcast(self.gather(outcome[1]))
        self._settle([(None, f) for f in failures])
        return outcome[0]

    @staticmethod
    def _settle(outcomes: list) -> list:
        for _, failure in outcomes:
            if failure:
                raise failure
        return [value for value, _ in outcomes]

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model as all ranks train it: in DDP, and in accelerate's precision.

        DDP sends rank 0's buffers to all before each forward. Those that modules name in `constant_buffers`
        are sent once, here.
        """
        self.share_buffers(model)
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, self.constant(model))
        if self.accelerator.ddp_handler and self.unused:  # else DDP waits for their gradients, and gives up
            self.accelerator.ddp_handler.find_unused_parameters = True
        with self.peers.waiting("DDP's comparison of the parameters"):
            # where it is to be said: else accelerate looks for DTensors, and loads sympy for it, 0.35 s
            model = self.accelerator.prepare(model, device_placement=[True])
        if isinstance(model, DistributedDataParallel) and self.device.type == "cpu":
            model._set_ddp_runtime_logging_sample_rate(10)  # for all_reduce_wait; one costs 40 us
        return model

    def compiled(self, model: torch.nn.Module) -> torch.nn.Module:
        """The same model by torch.compile, which compiles in its first step. See `compilable`."""
        if self.device.type == "cpu":  # of a machine without a GPU it would say so each time
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        else:  # which --tf32 decides, and the plan says
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        return torch.compile(model, dynamic=False)

    @staticmethod
    def constant(model: torch.nn.Module) -> list[str]:
        """Names of the buffers that no forward pass changes, as modules say in `constant_buffers`."""
        return [
            f"{name}.{buffer}".lstrip(".")
            for name, module in model.named_modules()
            for buffer in getattr(module, "constant_buffers", ())
        ]

    @contextmanager
    def trial(self):
        """Around models that are wrapped to be thrown away: afterwards all is as if they had not been."""
        scaler = self.accelerator.scaler
        state = scaler.state_dict() if scaler else {}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield
        self.accelerator.free_memory()  # it keeps what it has prepared
        if scaler:
            scaler.load_state_dict(state)

    def alone(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model in accelerate's precision on this rank's device, without the others."""
        return self.accelerator.prepare_model(model, device_placement=True, evaluation_mode=True)

    def backward(self, loss: torch.Tensor) -> None:
        """Add its gradients to the parameters'; under fp16 those of the scaled loss."""
        if self.accelerator.scaler:
            self.accelerator.backward(loss)
        else:  # what accelerate does, less a division by 1
            loss.backward()

    def waiting(self):
        """Around what waits for the device, and so for other ranks: a missing one is found out."""
        return self.peers.waiting("work on the device") if self.device.type == "cuda" else nullcontext()

    def wait_for_device(self) -> None:
        if self.device.type == "cuda":
            with self.waiting():
                torch.cuda.synchronize(self.device)

    @contextmanager
    def met(self):
        """`waiting` within a step: first the ranks meet over sockets, where a missing one is named."""
        self.agree(0)
        with self.waiting():
            yield

    def all_reduce_wait(self, model: torch.nn.Module) -> float:
        """Seconds that a step's backward pass waits for the gradients of other ranks when its own are done.

        The mean over the steps of this process that DDP measures by itself: the first ten, and then one in
        ten on a CPU, one in a hundred on a GPU, by its own clock. 0 for a model that is not in DDP.
        """
        model = getattr(model, "_orig_mod", model)  # torch.compile's
        if not isinstance(model, DistributedDataParallel):
            return 0.0
        found = model._get_ddp_logging_data()
        took, overlap = (
            found.get(f"avg_backward_{name}_time", 0) for name in ("comm", "compute_comm_overlap")
        )
        return max(0, took - overlap) / 1e9

    def share_buffers(self, module: torch.nn.Module) -> None:
        """Make rank 0's buffers (BatchNorm's running statistics) everyone's."""
        if self.world > 1:
            with self.peers.waiting("broadcast of the buffers"):
                for buffer in module.buffers():
                    dist.broadcast(buffer, src=0)

    def close(self) -> None:
        self.peers.close()
        if dist.is_initialized():
            dist.destroy_process_group()
