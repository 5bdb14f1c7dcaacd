"""One parsed command: what is asked of a training, and what of this start of it. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers import rundir
from relaunch.trainers.flags import Parser, check_all, flag
from relaunch.trainers.profiling import steps
from relaunch.trainers.workloads import setting

if TYPE_CHECKING:
    from relaunch.trainers.config import RunConfig

AUTO = "auto"  # of --resume
# what is measured in place of other settings, which a preset may have: what these say
INSTEAD = {
    "time": ("how long to train", ("epochs", "max_steps")),
    "micro_batch": ("how many micro-batches there are", ("grad_accum_steps",)),
}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What belongs to one start of a run and is not kept in its config."""

    run: str | None = setting(
        None,
        "the run's folder: a name under runs/, or a path (default: a new dated one)",
        metavar="NAME|PATH",
    )
    data_root: str | None = setting(
        None, "where packed data is kept (default: $RELAUNCH_DATA, else data)", metavar="FOLDER"
    )
    resume: str | None = setting(
        None,
        "'auto' continues --run, or starts it if it is empty; a PATH means --init PATH",
        metavar="auto|PATH",
    )
    init: str | None = setting(
        None,
        "begin a new run with these weights: RUN, RUN@best, RUN@STEP, a checkpoint's folder or a file",
        metavar="RUN|FILE",
    )
    init_head: Literal["fresh"] | None = setting(
        None, "with --init: begin the last layer anew where its shape differs, as with other classes"
    )
    fork: str | None = setting(
        None,
        "begin a new run with the whole state of RUN, RUN@best or RUN@STEP, and other settings from there",
        metavar="RUN",
    )
    preset: str | None = setting(
        None, "a named group of settings of the workload; flags override it", metavar="NAME"
    )
    micro_batch: Literal["auto"] | None = setting(
        None,
        "auto: the largest micro-batch that fits the memory, of the same --batch-size, in place of "
        "--grad-accum-steps; tried once, before the first step",
    )
    evaluate: bool = setting(False, "only evaluate the checkpoint given by --resume")
    split: str | None = setting(
        None, "with --evaluate: the split to score (default: val, else test)", metavar="NAME"
    )
    out: str | None = setting(
        None, "with --evaluate: where to write the predictions (default: inside the run)", metavar="FOLDER"
    )
    outputs: bool = setting(False, "with --evaluate: also write the raw outputs [N, classes] (images)")
    verify_data: bool = setting(False, "hash all of the packed data first; without it, what looks changed")
    stop_after: int | None = setting(
        None, "end after this step as a signal would: saved, code 75", least=1, metavar="STEP"
    )
    profile_steps: str | None = setting(
        None, "profile the steps between A and B: where their time goes, into RUN/profile-A-B", metavar="A:B"
    )
    # ten minutes: longer than the slowest save or evaluation batch of one rank, not yet an hour of eight GPUs
    timeout: int = setting(
        600,
        "seconds after which a process that is missing ends the others, with code 76",
        least=20,
        metavar="SECONDS",
    )

    def __post_init__(self):
        check_all(type(self), vars(self))
        path = self.resume not in (None, AUTO)
        begins = [name for name, typed in (("--init", self.init), ("--fork", self.fork)) if typed]
        begins += ["--resume PATH"] if path else []
        if len(begins) > 1:
            what = f"{begins[0]} and {begins[1]} both say what to begin with"
            raise Failure(USAGE, what, "leave one of them out")
        if self.evaluate and begins and not path:
            raise Failure(USAGE, f"{begins[0]} goes with training", "name what to evaluate with --resume")
        if self.profile_steps:
            steps.window(self.profile_steps, trains=not self.evaluate)
        if self.init_head and (self.evaluate or not self.weights):
            raise Failure(USAGE, "--init-head goes with --init", "add --init FILE|RUN, or leave it out")

    @property
    def weights(self) -> str | None:
        """What a new run is to begin with the weights of: --init, or its synonym --resume PATH."""
        return self.init or (self.resume if self.resume != AUTO else None)


def run_of(argv: list[str]) -> Path | None:
    """The run's folder that a command line names, before it is known what else it may say."""
    finder = Parser(add_help=False)
    finder.add_argument("--run")
    named = finder.parse_known_args(list(argv))[0].run
    return rundir.locate(named) if named else None


@dataclass(frozen=True)
class Job:
    """One parsed command: the config, this start's settings, and the names of those that were typed."""

    config: RunConfig
    launch: Launch
    given: frozenset[str]
    argv: tuple[str, ...]
    preset: frozenset[str] = frozenset()  # of those, the names that only the preset gave

    def __post_init__(self):
        typed = self.given - self.preset
        for name, (what, others) in INSTEAD.items():
            value = vars(self.config).get(name) or vars(self.launch).get(name)
            for other in typed.intersection(others) if value else ():
                both = f"{flag(name)} {value} and {flag(other)} {getattr(self.config, other)}"
                raise Failure(USAGE, f"{both} both say {what}", "leave one of them out")
        if "time" in self.given and self.launch.fork:
            what = f"--time {self.config.time} is of a run's own steps, and --fork begins at another's"
            raise Failure(USAGE, what, "say --max-steps, counted from the other's first")
