"""What a run is asked to be: one frozen, validated config, parsed once and kept as RUN/config.json.

    from relaunch.trainers.config import parse
    job = parse(["cifar10", "--arch", "net_bn", "--epochs", "10"])

Never imports torch: the command line reads defaults and help from here.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.data_prep.talk import give
from relaunch.trainers import workloads
from relaunch.trainers.finetune import scaled
from relaunch.trainers.flags import Parser, add_fields, check_all, seconds, words
from relaunch.trainers.interval import EVERY, between_saves, steps_or
from relaunch.trainers.job import INSTEAD, Job, Launch, run_of
from relaunch.trainers.workloads import Workload, own, setting

TRAIN = "relaunch train"
# what is typed most, of RunConfig and Launch
COMMON = ("data", "arch", "epochs", "max_steps", "time", "batch_size", "lr", "seed", "run", "resume", "init")
# what --tf32 makes of float32 on a GPU that has it, for people
TF32 = {"conv": ", TF32 in convolutions", "all": ", TF32 in convolutions and matrix products", "none": ""}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of one training. Equal configs on equal data, hardware and threads train equal bits."""

    workload: str = field(metadata={"help": "what to train"})
    data: str = setting(
        MISSING,
        "packed data set, by name under the data root or by path (default: the workload's own)",
        metavar="NAME|PATH",
    )
    arch: str = setting(MISSING, "model architecture", metavar="NAME")
    epochs: int = setting(10, "epochs to train; with --max-steps, the smaller of the two", least=1)
    max_steps: int | None = setting(None, "optimizer steps to train", least=1)
    time: str | None = setting(
        None,
        "train as many steps as this time holds, in place of --epochs: 90s, 30m, 1h30m. They are measured "
        "once, before the first",
        metavar="TIME",
    )
    batch_size: int = setting(128, "samples per optimizer step over all processes", "-b", least=1)
    eval_batch_size: int = setting(250, "samples (text: windows) scored at a time by each process", least=1)
    grad_accum_steps: int = setting(1, "micro-batches per optimizer step", least=1)
    optimizer: Literal["sgd", "adam", "adamw", "adadelta", "muon"] = setting(
        "sgd", "update rule; muon: hidden matrices by Muon, the rest by AdamW"
    )
    lr: float = setting(0.1, "learning rate (its peak, where the schedule has one)", least=0)
    schedule: Literal["constant", "step", "linear", "cosine", "one-cycle"] = setting(
        "constant", "learning rate over the run"
    )
    step_size: int = setting(1, "epochs between two reductions of --schedule step", least=1, metavar="EPOCHS")
    gamma: float = setting(0.1, "factor of each reduction of --schedule step", least=0)
    warmup_steps: int = setting(
        0, "steps of linear warm-up before the schedule's full rate", least=0, metavar="STEPS"
    )
    momentum: float = setting(0.9, "momentum of sgd and muon", least=0)
    weight_decay: float = setting(
        0.0, "weight decay (L2 for sgd, adam and adadelta; decoupled for adamw and muon)", least=0
    )
    ema: float = setting(
        0.0, "score and save an exponential average of the weights, of this decay (0.999); 0: none", least=0
    )
    freeze: tuple[str, ...] = setting(
        (),
        "parameters that are not trained, by name: 'layer1.*'; BatchNorms among them keep their statistics. "
        "May be given several times",
        metavar="PATTERN",
    )
    lr_scale: tuple[str, ...] = setting(
        (),
        "parameters whose learning rate is the schedule's times a factor: 'layer4.*=0.1'. May be given "
        "several times; the last one that matches a parameter counts",
        metavar="PATTERN=FACTOR",
    )
    clip: float = setting(0.0, "largest norm of the gradient; 0 leaves it alone", least=0)
    seed: int = setting(1, "seed of initial weights, order, augmentation and dropout", least=0)
    threads: int | None = setting(
        None,
        "CPU threads per process (default: physical cores / local processes; with --elastic-exact 1)",
        least=1,
    )
    input: Literal["packed", "raw"] = setting(
        "packed",
        "packed: index packed arrays; raw: read and decode each original image when it is wanted",
    )
    workers: int = setting(0, "with --input raw: processes that load, beside each one that trains", least=0)
    raw: str | None = setting(
        None, "… the folder (mnist, cifar10: or archive) that was packed", metavar="PATH"
    )
    compile: Literal["off", "on", "auto"] = setting(
        "off", "torch.compile; auto: where it repays itself within this training, measured before it begins"
    )
    deterministic: bool = setting(True, "bit-reproducible kernels on CUDA")
    elastic_exact: bool = setting(False, "equal bits on 1, 2, 4 and 8 processes, at a price in speed")
    # torch's own default, and what runs did before there was a choice
    tf32: Literal["conv", "all", "none"] = setting(
        "conv",
        "where float32 is TF32 on GPUs from Ampere on, several times faster with 10 bits of mantissa for 23: "
        "conv: in convolutions; all: in matrix products, too; none: nowhere",
    )
    on_nan: Literal["stop", "rollback"] = setting(
        "stop",
        "where a loss or gradient is not finite: stop, with code 70; rollback: go back to the last "
        "checkpoint and leave that step out",
    )
    check_every: int = setting(
        0,
        "steps between two that are computed twice and compared bit by bit, to find hardware that computes "
        "wrong; 0: only one after a loss far outside the last ones",
        least=0,
        metavar="STEPS",
    )
    save_every: int | str = setting(1000, EVERY, least=1, metavar="STEPS|TIME", reads=steps_or)
    keep: int = setting(3, "newest checkpoints kept, beside the best", least=1)
    eval_every: int = setting(
        1, "epochs between evaluations, beside the one at the end", least=1, metavar="EPOCHS"
    )
    log_interval: int = setting(
        100,
        "steps between log lines; if it is not given, at most a quarter of an epoch",
        least=1,
        metavar="STEPS",
    )
    patience: int | None = setting(
        None, "end after this many evaluations in a row that brought no better metric than the best", least=1
    )
    options: typing.Any = field(metadata={"help": "the workload's own settings"})
    code: dict | None = field(
        default=None, metadata={"help": "SHA-256 of the files of a workload of one's own"}
    )

    def __post_init__(self):
        given = {name: value for name, value in vars(self).items() if name not in ("options", "workload")}
        check_all(type(self), given)
        work = workloads.load(self.workload)
        if self.code != (work.code and work.code.record()):
            what = f"the files of {self.workload} are not those that this config was made with"
            raise Failure(USAGE, what, "start a new --run, or name the run's own code")
        library, colon, _ = self.arch.partition(":")
        if self.arch not in work.archs and not (colon and library in work.task.libraries):
            what = f"{self.workload} has no architecture {self.arch!r}"
            raise Failure(USAGE, what, offered(self.arch, work.architectures))
        if self.workers and self.input != "raw":
            what = f"--workers {self.workers} goes with --input raw: packed data need nobody who loads them"
            raise Failure(USAGE, what, "add --input raw, or leave --workers out")
        for text in self.lr_scale:
            scaled(text)
        if self.ema >= 1:
            what = f"--ema {self.ema} is no decay: its average would never move"
            raise Failure(USAGE, what, "give one below 1, as 0.999")
        if self.check_every and not self.deterministic:
            what = "--check-every compares bits, and --no-deterministic gives them up"
            raise Failure(USAGE, what, "leave one of them out")
        between_saves(self.save_every, 0.0)
        if self.time and seconds(self.time) and self.compile == "auto":
            what = "--compile auto compares the time of so many steps, and --time asks how many they are"
            raise Failure(USAGE, what, "choose --compile on or off")
        if self.elastic_exact and not self.threads:  # a number that every machine has: it decides the bits
            object.__setattr__(self, "threads", 1)
        if self.batch_size % self.grad_accum_steps:
            what = f"--batch-size {self.batch_size} does not divide by --grad-accum-steps "
            raise Failure(USAGE, f"{what}{self.grad_accum_steps}", "choose a multiple")

    def __reduce_ex__(self, protocol):
        if work := self.code and workloads.load(self.workload):  # which other ranks may not have
            return own.revive, (work.code, self.to_json())
        return super().__reduce_ex__(protocol)

    def to_json(self) -> dict:
        """A dict that `from_json` turns into an equal config."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: dict, where: str = "config.json") -> RunConfig:
        """The config of a run, also of one that an older version wrote: what it lacks is as it was then.

        Unknown and wrong values are Failure 65; `where` is the file they come from.
        """
        try:
            options = workloads.load(values["workload"]).options
            theirs = completed(options, values["options"])
            check_all(options, theirs)
            with own.blamed():
                return RunConfig(**{**completed(RunConfig, values), "options": options(**theirs)})
        except (TypeError, KeyError, Failure) as error:
            raise Failure(
                DATA,
                f"{where} does not fit this version of Relaunch ({error})",
                "use the version that wrote it",
            ) from error


def completed(cls, values: dict) -> dict:
    """`values` and, for the fields that it lacks, what was done before there were these fields."""
    if unknown := set(values) - {f.name for f in fields(cls)}:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    before = {f.name: f.metadata.get("before", f.default) for f in fields(cls)}
    merged = {name: value for name, value in before.items() if value is not MISSING} | values
    return {name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()}


def workload_parser(name: str, prog: str = TRAIN, work: Workload | None = None) -> Parser:
    """The parser of one workload: its own flags, the common ones, and their defaults for it."""
    work = work or workloads.load(name)
    presets = "".join(
        f"\n  {key}: {' '.join(word for k, v in values.items() for word in words(k, v))}"
        for key, values in work.presets.items()
    )
    parser = Parser(
        prog=f"{prog} {name}", description=work.about + (f"\n\npresets:{presets}" if presets else "")
    )
    defaults = {**work.defaults, "data": work.data, "arch": work.archs[0]}
    archs = ", ".join(work.architectures).replace("torchvision:NAME", "torchvision:NAME for images in colour")
    add_fields(
        parser,
        work.options,
        defaults,
        f"settings of {name} (architectures: {archs})",
    )
    add_fields(parser, RunConfig, defaults, "training")
    add_fields(parser, Launch, {}, "this start")
    return parser


def overview(prog: str) -> str:
    lines = ["workloads:"]
    lines += [f"  {name:14} {workloads.load(name).about.splitlines()[0]}" for name in workloads.names()]
    lines += [f"  {name:14} {where}, which is installed" for name, where in sorted(own.installed().items())]
    lines += [f"  {'FILE.py':14} your own: a file that defines WORKLOAD = Workload(...)"]
    every = f"{prog} WORKLOAD --help lists every flag, with its default."
    parser = Parser(
        prog=prog,
        usage=f"{prog} WORKLOAD [flags]",
        description="\n".join(lines),
        epilog=every,
        add_help=False,
    )
    if prog == TRAIN:
        unset = dict.fromkeys(COMMON)  # a workload's defaults are its own
        add_fields(parser, RunConfig, unset, "training, the common flags", COMMON)
        add_fields(parser, Launch, unset, "this start, the common flags", COMMON)
    return parser.format_help().rstrip("\n")


def parse(argv: list[str], prog: str = TRAIN, beside: tuple[Parser, ...] = ()) -> Job:
    """Parse `WORKLOAD|FILE.py --flag value …`. Raises Failure 64; `--help` prints and leaves with 0."""
    if not argv or argv[0] in ("-h", "--help"):
        give(overview(prog))
        raise SystemExit(0 if argv else USAGE)
    if argv[0].startswith("-"):
        fix = f"type: {prog} {' | '.join(workloads.names())} …"
        raise Failure(USAGE, f"the workload comes first, before {argv[0]}", fix)
    work = workloads.load(own.in_run(argv[0], run_of(argv)))
    parser = workload_parser(argv[0], prog, work)
    parser.beside = beside
    given = vars(parser.parse_args(list(argv[1:])))
    launch = Launch(**{f.name: given[f.name] for f in fields(Launch) if f.name in given})
    preset = {}
    if launch.preset:
        if launch.preset not in work.presets:
            raise Failure(
                USAGE,
                f"{work.name} has no preset {launch.preset!r}",
                offered(launch.preset, work.presets, "it has") or "it has none: leave --preset out",
            )
        preset = work.presets[launch.preset]
    for name, (_, others) in INSTEAD.items():
        if given.get(name):
            preset = {key: value for key, value in preset.items() if key not in others}
    values = {**preset, **given}
    config = build(work, values | ({"grad_accum_steps": 1} if launch.micro_batch else {}))
    names = frozenset(values) - {f.name for f in fields(Launch)}
    return Job(config, launch, names, tuple(argv), frozenset(preset) - set(given))


def build(work, values: dict) -> RunConfig:
    """The config of a workload with `values` over its defaults. Keys of other dataclasses are ignored."""
    merged = {"data": work.data, "arch": work.archs[0], **work.defaults, **values}
    own_values = {f.name: merged[f.name] for f in fields(work.options) if f.name in merged}
    common = {
        f.name: merged[f.name]
        for f in fields(RunConfig)
        if f.name in merged and f.name not in ("workload", "options", "code")
    }
    check_all(work.options, own_values)
    code = work.code and work.code.record()
    with own.blamed():
        return RunConfig(workload=work.name, options=work.options(**own_values), code=code, **common)
