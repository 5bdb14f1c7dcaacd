"""What a run is asked to be: one frozen, validated config, parsed once and kept as RUN/config.json.

    from trainers.config import parse
    job = parse(["cifar10", "--arch", "net_bn", "--epochs", "10"])

Never imports torch: the command line reads defaults and help from here.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import types
import typing
from dataclasses import dataclass, field, fields
from typing import Literal

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.trainers import workloads
from relaunch.trainers.workloads import setting


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of one training. Equal configs on equal data, hardware and threads train equal bits."""

    workload: str = field(metadata={"help": "what to train"})
    data: str = setting(
        "", "packed data set, by name under the data root or by path (default: the workload's own)"
    )
    arch: str = setting("", "model architecture")
    epochs: int = setting(10, "epochs to train; with --max-steps, the smaller of the two")
    max_steps: int | None = setting(None, "optimizer steps to train")
    batch_size: int = setting(128, "samples per optimizer step over all processes", "-b")
    eval_batch_size: int = setting(1000, "samples (text: windows) scored at a time by each process")
    grad_accum_steps: int = setting(1, "micro-batches per optimizer step")
    optimizer: Literal["sgd", "adam", "adamw", "adadelta"] = setting("sgd", "update rule")
    lr: float = setting(0.1, "learning rate (its peak, where the schedule has one)")
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = setting(
        "constant", "learning rate over the run"
    )
    step_size: int = setting(1, "epochs between two reductions of --schedule step")
    gamma: float = setting(0.1, "factor of each reduction of --schedule step")
    warmup_steps: int = setting(0, "steps of linear warm-up before the schedule's full rate")
    momentum: float = setting(0.9, "momentum of sgd")
    weight_decay: float = setting(0.0, "weight decay (L2 for sgd, adam and adadelta; decoupled for adamw)")
    clip: float = setting(0.0, "largest norm of the gradient; 0 leaves it alone")
    seed: int = setting(1, "seed of initial weights, order, augmentation and dropout")
    threads: int | None = setting(None, "CPU threads per process (default: physical cores / local processes)")
    deterministic: bool = setting(True, "bit-reproducible kernels on CUDA")
    save_every: int = setting(1000, "steps between checkpoints, beside those at each epoch's end")
    keep: int = setting(3, "newest checkpoints kept, beside the best")
    eval_every: int = setting(1, "epochs between evaluations, beside the one at the end")
    log_interval: int = setting(100, "steps between log lines")
    options: typing.Any = field(metadata={"help": "the workload's own settings"})

    def __post_init__(self):
        check_all(
            type(self),
            {name: value for name, value in vars(self).items() if name not in ("options", "workload")},
        )
        for name in (
            "epochs",
            "max_steps",
            "batch_size",
            "eval_batch_size",
            "grad_accum_steps",
            "step_size",
            "threads",
            "keep",
            "eval_every",
            "log_interval",
            "save_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Failure(USAGE, f"{flag(name)} {value} is too small", "it must be at least 1")
        for name in ("warmup_steps", "momentum", "weight_decay", "clip", "lr", "gamma", "seed"):
            if getattr(self, name) < 0:
                raise Failure(
                    USAGE, f"{flag(name)} {getattr(self, name)} is negative", "it must be at least 0"
                )
        archs = workloads.load(self.workload).archs
        if self.arch not in archs:
            raise Failure(
                USAGE, f"{self.workload} has no architecture {self.arch!r}", f"use --arch {' | '.join(archs)}"
            )
        if self.batch_size % self.grad_accum_steps:
            raise Failure(
                USAGE,
                f"--batch-size {self.batch_size} does not divide by --grad-accum-steps "
                f"{self.grad_accum_steps}",
                "choose a multiple",
            )

    def to_json(self) -> dict:
        """A dict that `from_json` turns into an equal config."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: dict) -> RunConfig:
        """Strict: unknown, missing or wrong fields are Failure 65 (the file was written by another version, or by hand)."""
        try:
            work = workloads.load(values["workload"])
            for given, cls in ((values, RunConfig), (values["options"], work.options)):
                if differing := {f.name for f in fields(cls)} ^ set(given):
                    raise KeyError(", ".join(sorted(differing)))
            check_all(work.options, values["options"])
            return RunConfig(**{**values, "options": work.options(**values["options"])})
        except (TypeError, KeyError, Failure) as error:
            raise Failure(
                DATA,
                f"config.json does not fit this version of Relaunch ({error})",
                "resume it with the version that wrote it",
            ) from error


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as f:
                siblings.add(f.read())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


CHANGEABLE_ON_RESUME = {
    "save_every",
    "keep",
    "eval_every",
    "log_interval",
}  # change nothing that is trained: free on resume
EXTENDABLE = {"epochs", "max_steps"}  # may be extended where the schedule does not depend on the run's length


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What belongs to one start of a run and is not kept in its config."""

    run: str | None = setting(
        None, "the run's folder: a name under runs/, or a path (default: a new dated one)"
    )
    data_root: str | None = setting(None, "where packed data is kept (default: $RELAUNCH_DATA, else data)")
    resume: str | None = setting(
        None, "'auto' continues --run, or starts it if it is empty; a PATH starts from those weights"
    )
    preset: str | None = setting(None, "a named group of settings of the workload; flags override it")
    evaluate: bool = setting(False, "only evaluate the checkpoint given by --resume")
    split: str | None = setting(None, "with --evaluate: the split to score (default: val, else test)")
    out: str | None = setting(
        None, "with --evaluate: where to write the predictions (default: inside the run)"
    )
    outputs: bool = setting(False, "with --evaluate: also write the raw outputs [N, classes] (images)")
    stop_after: int | None = setting(None, "end after this step as a signal would: saved, code 75")
    # ten minutes: longer than the slowest save or evaluation batch of one rank, shorter than an hour of eight GPUs wasted
    timeout: int = setting(600, "seconds after which a process that is missing ends the others, with code 76")

    def __post_init__(self):
        if self.timeout < 20:
            raise Failure(USAGE, f"--timeout {self.timeout} is too small", "it must be at least 20 (seconds)")


@dataclass(frozen=True)
class Job:
    """One parsed command: the config, this start's settings, and the names of the settings that were typed."""

    config: RunConfig
    launch: Launch
    given: frozenset[str]
    argv: tuple[str, ...]


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are a Failure 64 of one line, and which takes --a_b for --a-b."""

    beside: tuple[Parser, ...] = ()  # that read other flags of the same line: a mistyped one may be theirs

    def __init__(self, *args, **kwargs):
        super().__init__(
            *args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message):
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split()[0]
            flags = [s for p in (self, *self.beside) for a in p._actions for s in a.option_strings]
            near = workloads.nearest(word, [s for s in flags if s.startswith("--")])
            raise Failure(
                USAGE,
                f"unknown argument {word!r}",
                f"did you mean {near}?" if near else f"see {self.prog} --help",
            )
        raise Failure(USAGE, message, f"see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):
        args = [
            a.split("=", 1)[0].replace("_", "-") + ("=" + a.split("=", 1)[1] if "=" in a else "")
            if a.startswith("--")
            else a
            for a in args
        ]
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if getattr(found, action.dest, None) == "" and action.default != "":  # an unset $VARIABLE
                name = action.option_strings[0] if action.option_strings else action.metavar
                raise Failure(USAGE, f"{name} is empty", "give it a value, or leave it out")
        return found, rest


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def scalar(hint):
    """The type inside `int | None`, and the choices of a Literal: (callable, choices or None)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint)
    return hint, None


def check(name: str, hint, value):
    """Raise Failure 64 unless `value` is what the field's type says."""
    kind, choices = scalar(hint)
    optional = type(None) in typing.get_args(hint)
    if value is None and optional:
        return
    if choices and value not in choices:
        raise Failure(USAGE, f"{flag(name)} {value!r} is not one of {', '.join(choices)}")
    fits = isinstance(value, bool) == (kind is bool) and isinstance(
        value, (int, float) if kind is float else kind
    )
    if not fits or (kind is float and not math.isfinite(value)):
        raise Failure(
            USAGE, f"{flag(name)} {value!r} is not {'a finite number' if kind is float else kind.__name__}"
        )


def check_all(cls, values: dict):
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        check(name, hints[name], value)


def add_fields(parser: argparse.ArgumentParser, cls, defaults: dict, title: str):
    """One flag per field of a dataclass. Nothing is set unless typed, so that what was typed is known."""
    group, hints = parser.add_argument_group(title), typing.get_type_hints(cls)
    for f in fields(cls):
        if f.name in ("workload", "options"):
            continue
        kind, choices = scalar(hints[f.name])
        default = defaults.get(f.name, f.default)
        help = f.metadata["help"].replace("%", "%%")
        if default not in (None, "", False):
            help += f" [{default}]"
        names = [n for n in (f.metadata.get("short"), flag(f.name)) if n]
        common = dict(dest=f.name, default=argparse.SUPPRESS, help=help)
        if kind is bool:
            group.add_argument(
                *names, action=argparse.BooleanOptionalAction if default else "store_true", **common
            )
        else:
            group.add_argument(
                *names,
                type=kind,
                choices=choices,
                metavar=None if choices else kind.__name__.upper(),
                **common,
            )


def workload_parser(name: str, prog: str = "relaunch train") -> Parser:
    """The parser of one workload: its own flags, the common ones, and their defaults for it."""
    work = workloads.load(name)
    presets = "".join(
        f"\n  {key}: {' '.join(f'{flag(k)} {v}' for k, v in values.items())}"
        for key, values in work.presets.items()
    )
    parser = Parser(
        prog=f"{prog} {name}", description=work.about + (f"\n\npresets:{presets}" if presets else "")
    )
    defaults = {**work.defaults, "data": work.data, "arch": work.archs[0]}
    add_fields(parser, work.options, defaults, f"settings of {name} (architectures: {', '.join(work.archs)})")
    add_fields(parser, RunConfig, defaults, "training")
    add_fields(parser, Launch, {}, "this start")
    return parser


def overview(prog: str) -> str:
    lines = [f"usage: {prog} WORKLOAD [flags]", "", "workloads:"]
    lines += [f"  {name:14} {workloads.load(name).about.splitlines()[0]}" for name in workloads.names()]
    return "\n".join(lines + ["", f"{prog} WORKLOAD --help lists the flags and their defaults."])


def parse(argv: list[str], prog: str = "relaunch train", beside: tuple[Parser, ...] = ()) -> Job:
    """Parse `WORKLOAD --flag value …`. Raises Failure 64; `--help` prints and leaves with 0."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview(prog))
        raise SystemExit(0 if argv else USAGE)
    if argv[0].startswith("-"):
        raise Failure(
            USAGE,
            f"the workload comes first, before {argv[0]}",
            f"type: {prog} {' | '.join(workloads.names())} …",
        )
    work = workloads.load(argv[0])
    parser = workload_parser(argv[0], prog)
    parser.beside = beside
    given = vars(parser.parse_args(list(argv[1:])))
    launch = Launch(**{f.name: given[f.name] for f in fields(Launch) if f.name in given})
    preset = {}
    if launch.preset:
        if launch.preset not in work.presets:
            raise Failure(
                USAGE,
                f"{work.name} has no preset {launch.preset!r}",
                f"it has {', '.join(work.presets)}" if work.presets else "it has none: leave --preset out",
            )
        preset = work.presets[launch.preset]
    values = {**preset, **given}
    config = build(work, values)
    return Job(config, launch, frozenset(values) - {f.name for f in fields(Launch)}, tuple(argv))


def build(work, values: dict) -> RunConfig:
    """The config of a workload with `values` over its defaults. Keys of other dataclasses are ignored."""
    merged = {"data": work.data, "arch": work.archs[0], **work.defaults, **values}
    own = {f.name: merged[f.name] for f in fields(work.options) if f.name in merged}
    common = {
        f.name: merged[f.name]
        for f in fields(RunConfig)
        if f.name in merged and f.name not in ("workload", "options")
    }
    check_all(work.options, own)
    return RunConfig(workload=work.name, options=work.options(**own), **common)


def merge_resumed(old: RunConfig, job: Job) -> RunConfig:
    """The config of a resumed run: the stored one, with what may change changed. Other differences are Failure 64."""
    new, changed, options = job.config, {}, {f.name for f in fields(old.options)}
    if new.workload != old.workload:
        raise Failure(USAGE, f"this run trains {old.workload}, not {new.workload}", "choose another --run")
    for name in sorted(
        job.given - {"data"}
    ):  # data may have moved: it is compared by its hash, where it is opened
        was, now = (getattr(c.options if name in options else c, name) for c in (old, new))
        if was == now:
            continue
        if name in EXTENDABLE and old.schedule not in ("constant", "step"):
            raise Failure(
                USAGE,
                f"{flag(name)} {now} changes the {old.schedule} schedule of a run begun with {was}",
                "only constant and step schedules can be extended; start a new --run",
            )
        if name not in CHANGEABLE_ON_RESUME | EXTENDABLE:
            raise Failure(
                USAGE,
                f"{flag(name)} {now} differs from this run's {was}",
                "leave it out, or start a new --run",
            )
        changed[name] = now
    if "data" in job.given:
        changed["data"] = new.data
    return dataclasses.replace(old, **changed)
