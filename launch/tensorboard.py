"""`relaunch tensorboard`: TensorBoard on this machine, for just these runs.

relaunch tensorboard first second

TensorBoard is given a folder of links, whose names are those that it shows: first/train, first/val.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TextIO

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import listed, printable
from relaunch.data_prep.talk import tell
from relaunch.launch import processes, runs
from relaunch.trainers import records, rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.rundir import RunDir

SPLITS = ("train", "val")
AGAIN = 5.0  # seconds between two looks for curves that were not there yet
READY = re.compile(r"TensorBoard \S+ at (http://\S+)")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HOST = "127.0.0.1"  # TensorBoard asks nobody for a password


def main(argv: list[str]) -> int:
    """Returns 0 when it is asked to end; else TensorBoard's own end is a Failure."""
    parser = Parser(
        prog="relaunch tensorboard",
        description=(
            "Show the curves, graph, images, texts and hyper-parameters of runs in TensorBoard, on this\n"
            f"machine only ({HOST}). Train and validation share their charts. Ctrl-C ends it.\n\n"
            "  relaunch tensorboard                  all runs under runs/, and those that begin meanwhile\n"
            "  relaunch tensorboard first second     these two\n"
            f"  ssh -L 6006:{HOST}:6006 HOST      on your own machine: its browser sees HOST's"
        ),
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a name under runs/, or a path (default: all)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 6006)")
    args = parser.parse_args(argv)
    chosen = [runs.found(name) for name in args.runs]
    shown = [run for run in chosen or rundir.runs() if curves(run)]
    without = [run for run in chosen or rundir.runs() if not curves(run)]
    names = listed(run.path.name for run in without)
    if not shown:
        what = f"no curves yet: {names}" if without else "no runs under runs/ yet"
        raise Failure(DATA, what, "they come with a run's first log line")
    if without:
        tell(f"relaunch: no curves yet: {names}", sys.stderr)
    check_port(args.port)
    place = files.storage(tempfile.gettempdir(), "TMPDIR")
    with place, tempfile.TemporaryDirectory(prefix="relaunch-") as folder:
        return serve(Links(Path(folder), chosen), args.port)


def check_port(port: int | None) -> None:
    """Failure 64 unless something may listen there."""
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "ports are 0 to 65535"
            raise Failure(USAGE, f"--port {port} cannot be used ({why})", "name another, or none") from error


def curves(run: RunDir) -> list[str]:
    """The splits of which something was drawn."""
    return [s for s in SPLITS if any(".tfevents." in name for name in records.names(run.tensorboard / s))]


def traces(run: RunDir) -> list[Path]:
    """What was profiled of the run, in whichever of its folders."""
    return sorted(run.path.glob("profile*/trace*.json*"))


class Links:
    """The folder that TensorBoard looks into: NAME/train and NAME/val lead to each run's own."""

    def __init__(self, folder: Path, chosen: list[RunDir]):
        """`chosen`: none, for all runs under runs/."""
        self.folder, self.chosen = folder, chosen
        self.names: dict[Path, str] = {}  # by what a run's path really is
        self.told: dict[str, list[Path]] = {}  # the traces that TensorBoard tells of, by a run's name
        self.look()

    def look(self) -> None:
        """Take in the runs whose curves have begun."""
        for run in self.chosen or rundir.runs():
            name = self.name(run.path.absolute()) if curves(run) else ""
            for split in curves(run):
                link = self.folder / name / split
                link.parent.mkdir(exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to((run.tensorboard / split).absolute())
            if name and (found := traces(run)) != self.told.get(name, []):
                self.told[name] = found
                write_text(self.folder / name / "profile", "traces", way_to(found))

    def name(self, path: Path) -> str:
        """The folder's own, with a number where two runs have the same."""
        real = path.resolve()
        if real not in self.names:
            own, taken = printable(path.name or "run"), set(self.names.values())
            numbered = (own if n == 1 else f"{own}-{n}" for n in itertools.count(1))
            self.names[real] = next(name for name in numbered if name not in taken)
        return self.names[real]


def way_to(found: list[Path]) -> str:
    """In Markdown: where the traces lie and how they are looked at."""
    rows = [f"- `{printable(str(path.absolute()))}`" for path in found]
    how = "To look at one, open [ui.perfetto.dev](https://ui.perfetto.dev) and drop the file there."
    return "\n".join(["Profiles of this run:", "", *rows, "", f"{how} It stays on your machine."])


def write_text(folder: Path, tag: str, text: str) -> None:
    """A text for TensorBoard's tab of texts."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    writer.add_event(Event(wall_time=time.time(), step=0, summary=text_pb(tag, text)))
    writer.close()


def program(folder: Path, port: int | None) -> list[str]:
    """TensorBoard's own, nothing of which is looked for in the current folder."""
    # its fast loader draws what a killed start had logged beyond the step that was gone on from
    flags = ["--load_fast", "false", "--samples_per_plugin", "scalars=10000,images=100,text=100"]
    where = ["--logdir", str(folder), "--host", HOST, *(["--port", str(port)] if port is not None else [])]
    return [sys.executable, "-P", "-m", "tensorboard.main", *where, *flags]


def serve(links: Links, port: int | None) -> int:
    """Run TensorBoard until a signal asks us to end, or it ends by itself."""
    asked, said = threading.Event(), deque[str](maxlen=20)
    ignored = signal.SIGHUP if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else None  # by nohup
    before = {n: signal.signal(n, lambda *_: asked.set()) for n in STOPS if n != ignored}
    parent = os.getpid()
    child = subprocess.Popen(
        program(links.folder, port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # a terminal's Ctrl-C comes through us
        preexec_fn=lambda: processes.die_with_parent(parent),
    )
    reader = threading.Thread(target=listen, args=(child.stderr, said), daemon=True)
    reader.start()
    try:
        looked = time.monotonic()
        while child.poll() is None and not asked.wait(0.2):
            if time.monotonic() - looked > AGAIN:
                links.look()
                looked = time.monotonic()
    finally:
        ended = child.poll()
        child.terminate()
        child.wait()
        reader.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended is not None and not asked.is_set():
        raise Failure(1, f"TensorBoard ended by itself: {said[-1] if said else f'code {ended}'}")
    return 0


def listen(lines: TextIO, said: deque[str]) -> None:
    """Read what TensorBoard says; of that only its address is for users, unless it ends."""
    for line in lines:
        if found := READY.search(line):
            tell(f"TensorBoard: {found[1]} on this machine; Ctrl-C ends it")
        elif line.strip():
            said.append(line.strip())
