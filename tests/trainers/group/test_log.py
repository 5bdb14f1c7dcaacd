"""A log per rank: everything that it writes, in the order in which it does, to its very last words."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from relaunch.launch import restart
from relaunch.trainers.group import copier
from relaunch.trainers.rundir import HEAD, RunDir

# A worker that writes in every way that there is, and ends in some.
WORKER = """
import os, subprocess, sys, time
from pathlib import Path
from relaunch.trainers.group import log, process
def run(argv):
    print("before")
    log.keep(Path("logs/rank-1.log"), "rank 1 of 2", argv[0] == "aloud")
    print("on stdout", flush=True)
    print("on stderr", file=sys.stderr)
    os.write(2, b"native\\n")
    subprocess.run(["echo", "of a child"])
    for percent in (0, 50, 100):
        sys.stderr.write(f"\\r{percent} %")
    sys.stderr.write("\\nterminal\\n" if sys.stderr.isatty() else "\\npipe\\n")
    sys.stderr.flush()
    end = argv[1]
    if end == "crashes":
        os.kill(os.getpid(), 11)
    slow = f"kill -STOP {log._copier.pid}; echo; sleep 0.4; kill -CONT {log._copier.pid}"
    subprocess.Popen(["sh", "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.read(1)
    sys.stderr.write("100 %\\n")
    if end == "raises":
        raise ValueError("odd")
    if end == "is lost":
        raise process.Lost(1, "gone", "", True)
    return 0, None
sys.exit(process.main(run))
"""


def start(folder, how: str, end: str = "crashes", **streams) -> subprocess.Popen:
    (folder / "worker.py").write_text(WORKER)
    return subprocess.Popen(
        [sys.executable, "worker.py", how, end], cwd=folder, stdin=subprocess.DEVNULL, text=True, **streams
    )


def kept(folder) -> list[str]:
    head, *lines = (folder / "logs/rank-1.log").read_text().splitlines()
    assert head.startswith(f"{HEAD}rank 1 of 2, process ")
    return lines


def test_a_log_has_everything_and_so_have_the_streams(tmp_path):
    worker = start(tmp_path, "aloud", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGSEGV
    assert out.splitlines() == ["before", "on stdout", "of a child"]
    bar = ["", "0 %", "50 %", "100 %"]  # a line's return is read as its end here
    assert err.splitlines()[:7] == ["on stderr", "native", *bar, "pipe"] and "Segmentation fault" in err
    lines = kept(tmp_path)
    assert {"on stdout", "on stderr", "native", "of a child", "100 %"} < set(lines) and "before" not in lines
    assert "Fatal Python error: Segmentation fault" in lines and not any("50 %" in line for line in lines)


@pytest.mark.parametrize("end, says", [("returns", "100 %"), ("raises", "odd"), ("is lost", "gone")])
def test_at_its_end_all_has_arrived(tmp_path, end, says):
    """Whoever waited for a process may read what it said, in whatever way it ended."""
    with open(tmp_path / "output", "wb") as output:
        start(tmp_path, "aloud", end, stdout=output, stderr=output).wait(timeout=60)
    assert says in (tmp_path / "output").read_text()


def test_one_stream_keeps_its_order(tmp_path):
    worker = start(tmp_path, "aloud", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    worker.communicate(timeout=60)
    assert kept(tmp_path)[:5] == ["on stdout", "on stderr", "native", "of a child", "100 %"]


def test_a_quiet_rank_is_in_its_log_alone(tmp_path):
    worker = start(tmp_path, "quiet", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert worker.communicate(timeout=60) == ("before\n", "") and "native" in kept(tmp_path)


def test_without_a_log_its_lines_are_where_they_were(tmp_path):
    (tmp_path / "logs").write_text("a file")
    worker = start(tmp_path, "quiet", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = worker.communicate(timeout=60)
    assert "on stdout" in out and "relaunch: no log of rank 1 of 2 in logs/rank-1.log (" in err


def test_on_a_terminal_a_bar_still_moves(tmp_path):
    ours, theirs = pty.openpty()
    worker = start(tmp_path, "aloud", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # closed at its other end
            break
    worker.wait(timeout=60)
    os.close(ours)
    assert b"\r50 %\r100 %" in shown and b"terminal\r\n" in shown
    assert kept(tmp_path)[4:6] == ["100 %", "terminal"]


def test_a_line_that_finds_no_room_is_said(tmp_path):
    """Of a quiet rank, too: a full disk must not swallow why it ends."""
    log = os.open(sys.executable, os.O_RDONLY)  # takes nothing
    for how, said in (("quiet", b"a\nc\nd\n"), ("aloud", b"a\nb\rc\nd")):
        read, write = os.pipe()
        words = [sys.executable, "-I", "-S", copier.__file__, str(log), how, f"{read}:1"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=[log, read])
        os.close(read)
        os.write(write, b"a\nb\rc\nd")
        os.close(write)
        assert child.communicate(timeout=60)[0] == said
    os.close(log)


def test_what_stops_a_group_stops_no_copier(tmp_path):
    read, write = os.pipe()
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    words = [sys.executable, "-I", "-S", copier.__file__, str(log), "aloud", f"{read}:1"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=[log, read])
    for end in (read, log):
        os.close(end)
    os.write(write, b"first\n")
    assert child.stdout.read(6) == b"first\n"
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        child.send_signal(number)
    os.write(write, b"last\n")
    os.close(write)
    assert child.communicate(timeout=60)[0] == b"last\n" and (tmp_path / "log").read_text() == "first\nlast\n"


@pytest.mark.parametrize(
    "pieces, log",
    [
        ([b"one\ntwo\n"], b"one\ntwo\n"),
        ([b"on", b"e\n", b"tw", b"o"], b"one\ntwo\n"),
        ([b"\r 1 %", b"\r 2 %", b"\r      \rline\n", b"\r 3 %\n"], b"line\n 3 %\n"),
        ([b"ended as elsewhere\r\n"], b"ended as elsewhere\n"),
        ([b"\r 1 %\r"], b" 1 %\n"),
        ([b"x" * 70000], b"x" * 70000 + b"\n"),
        ([b"\n\n"], b"\n\n"),
    ],
)
def test_a_log_has_lines_and_no_frames(pieces, log):
    got, waiting = b"", b""
    for piece in [*pieces, b""]:
        told, waiting = copier.kept(waiting + piece, ended=not piece)
        got += told
    assert (got, waiting) == (log, b"")


# what the launcher shows --------------------------------------------------------------------------------


def write(run: RunDir, rank: int, text: str, age: float) -> None:
    run.logs.mkdir(exist_ok=True)
    run.log(rank).write_text(text)
    os.utime(run.log(rank), (time.time() - age,) * 2)


def test_the_rank_that_is_blamed_or_fell_silent_first_is_shown(tmp_path):
    run, since = RunDir(tmp_path), time.time() - 50
    assert restart.last_lines(run, "crashed (exit code 1)", since) == ""
    write(run, 0, f"{HEAD}rank 0\nstep 5\n", age=10)
    write(
        run,
        1,
        f"{HEAD}rank 1\nof an earlier start\n{HEAD}rank 1\n" + "".join(f"l{i}\n" for i in range(30)),
        20,
    )
    write(run, 2, f"{HEAD}rank 2\nof a larger group, an hour ago\n", age=3600)
    write(run, 3, f"{HEAD}rank 3\n", age=30)
    shown = restart.last_lines(run, "crashed (exit code 1)", since).splitlines()
    assert shown[0] == f"relaunch: the last lines in {run.log(1)}:"
    assert shown[1:] == [f"  l{i}" for i in range(10, 30)]
    assert restart.last_lines(run, "rank 0 (on n0) is gone: killed", since).endswith(":\n  step 5\n")
    assert restart.last_lines(run, "rank 3 (on n1) is gone: killed", since) == "", "it said nothing"
    assert restart.last_lines(run, "ranks 0, 1 are gone: killed", since).endswith(":\n  step 5\n")


@pytest.mark.slow
def test_a_crash_of_one_rank_is_told_once_and_its_cause_comes_last(relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", "step=2,rank=1,do=raise")
    words = ["mnist", "--config", "cpu2", "-b", "8", "--max-steps", "9", "--threads", "1", "--run", "./run"]
    done = subprocess.run(
        [sys.executable, "-m", "launch", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    lines, run = done.stdout.splitlines(), RunDir("run")
    assert done.returncode == 1 and done.stdout.count("RuntimeError: RELAUNCH_FAULT at step 2\n") == 1
    assert lines[-2] == "  RuntimeError: RELAUNCH_FAULT at step 2"
    assert lines[-1].startswith("relaunch: 1 rank 1 (on ") and "--run ./run --resume auto" in lines[-1]
    assert "relaunch: the last lines in run/logs/rank-1.log:" in lines
    assert "Traceback" in run.log(1).read_text() and "Traceback" not in run.log(0).read_text()
    assert "what each rank says is in run/logs" in run.log(0).read_text()
