"""What a job finds around it: its cluster's site file, and what of our environment it is given.

surroundings.environment(["HF_TOKEN", "NOTE=1"])    # ({"HOME": …, "NOTE": "1"}, ["HF_TOKEN"])
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import nearest, offered

# What a job gets of the environment it is submitted from. A whole environment holds tokens, and surprises.
KEPT = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "RELAUNCH_DATA", "HF_HOME", "HF_ENDPOINT")
KEPT_PREFIXES = ("NCCL_", "GLOO_", "UCX_")
# Of SLURM's own variables: where its controller is, and what sites set for a user in place of a flag.
# Others are those of the job in which somebody types: sbatch hands them on, whatever --export says.
KEPT_OF_SLURM = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SBATCH_CLUSTERS")
DEFAULTS = ("account", "partition", "qos", "constraint", "reservation", "wckey")
OF_SLURM = re.compile("_?SLURM|S(BATCH|QUEUE|CANCEL|ACCT|CONTROL)_")
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)KEY", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What is written once per cluster (--site FILE, YAML). `lines` and `container` are shell."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    modules: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()  # more of #SBATCH, such as --mem=64G
    lines: tuple[str, ...] = ()  # run before the start
    container: str = ""  # put before the command; {image} is the job's
    python: str = ""  # the interpreter there


def site(given: argparse.Namespace) -> Site:
    """The site's file with the typed flags over it. Failure 64 names what is wrong in it."""
    values, path = {}, given.site
    if path:
        try:
            values = yaml.safe_load(Path(path).read_text()) or {}
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise Failure(
                USAGE,
                f"--site {path} cannot be read ({error})",
                "it is a YAML file; docs/clusters.md shows one",
            ) from error
    if not isinstance(values, dict):
        raise Failure(USAGE, f"--site {path} holds no fields", "docs/clusters.md shows one")
    known = {f.name: f.default for f in fields(Site)}
    for name, value in values.items():
        if name not in known:
            raise Failure(USAGE, f"{path}: unknown field {name!r}", offered(str(name), known, "it may hold"))
        if known[name] == "" and not isinstance(value, str):
            raise Failure(USAGE, f"{path}: {name} is not a text", "quote it")
        if known[name] == () and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise Failure(USAGE, f"{path}: {name} is not a list of texts", "write it as [a, b]")
    values |= {name: value for name in known if (value := getattr(given, name, None))}
    return Site(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def checked(name: str, text: str) -> str:
    """Text for a line of its own, of which nothing may begin another. Failure 64."""
    if not text.isprintable():
        what = f"{name} {text!r} has a line break, a control character or a byte that is no text"
        raise Failure(USAGE, what, "leave it out")
    return text


def clean(env: Mapping[str, str], script: str | None = None) -> dict[str, str]:
    """The environment for a command of SLURM's. A `script` for sbatch says by itself what else it wants.

    A default that a site has set for its users, such as SBATCH_ACCOUNT, stays where the script says nothing:
    sbatch takes it before the script's own line.
    """
    kept = [*KEPT_OF_SLURM]
    if script is not None:
        kept += [f"SBATCH_{name.upper()}" for name in DEFAULTS if f"#SBATCH --{name}=" not in script]
    return {name: value for name, value in env.items() if name in kept or not OF_SLURM.match(name)}


def offered_variable(name: str) -> str:
    near = nearest(name, os.environ)
    return f"did you mean {near}? else write --env NAME=VALUE" if near else "write --env NAME=VALUE"


def environment(named: list[str], capture: bool = True) -> tuple[dict[str, str], list[str]]:
    """What a job gets of the environment: values that may be written down, and names whose values may not.

    Without `capture` only what `--env` has `named`: a laptop's PATH and HOME mean nothing in a container.
    """
    shown, hidden = {}, []
    words = [
        name for name in sorted(os.environ) if capture and (name in KEPT or name.startswith(KEPT_PREFIXES))
    ]
    for word in [*words, *named]:
        name, given, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise Failure(USAGE, f"--env {name!r} is not the name of a variable", "write NAME or NAME=VALUE")
        if SECRET.search(name) and given:
            raise Failure(
                USAGE,
                f"--env {name}=… would write a secret down for others to read",
                f"export {name} and say --env {name}",
            )
        if SECRET.search(name):
            if capture and not os.environ.get(name):  # elsewhere it is the cluster, or a form, that knows it
                fix = f"export {name}=… before you submit, or leave --env {name} out"
                raise Failure(USAGE, f"--env {name} is not set here: the job would lack it", fix)
            hidden.append(name)
        elif given or name in os.environ:
            shown[name] = value if given else os.environ[name]
        else:
            raise Failure(USAGE, f"--env {name} is not set here", offered_variable(name))
    return shown, hidden
