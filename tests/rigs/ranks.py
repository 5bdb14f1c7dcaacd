"""Ranks that accelerate starts on a script of a test, alone or under our launcher, and what they said."""

import re
import subprocess
import sys
from pathlib import Path

from relaunch.launch import accelerate_config

LAUNCHER = """
import os, sys
from relaunch.launch import supervise
from relaunch.data_prep.errors import Failure
with supervise.Asked() as asked:
    end = supervise.run(sys.argv[1:], dict(os.environ), False, asked)
if end.what: print(Failure(end.code, end.what, end.fix).line(), file=sys.stderr)
sys.exit(end.code)
"""


def ranks(script: Path, *words: str, count: int = 2, supervised: bool = False) -> list[str]:
    """The command that starts them."""
    config = accelerate_config.FOLDER / "cpu2.yaml"
    flags = f"--config_file {config} --num_processes {count} --main_process_port 0".split()
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, str(script), *words]
    return [sys.executable, "-c", LAUNCHER, *command] if supervised else command


def ours(errors: str) -> list[str]:
    """Our own lines, but for what faults say of themselves."""
    return [line for line in errors.splitlines() if re.match("relaunch: (?!FAULT)", line)]


def living(word: str) -> list[str]:
    """Processes in whose command it is."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if word in line]
