"""What runs are made of, as tables: results, hardware and versions, settings, commands, and the model.

settings([Told.of(RunDir("runs/first")), Told.of(RunDir("runs/second"))])
"""

from __future__ import annotations

import json
import subprocess
import sys

from relaunch.data_prep.names import command, quoted
from relaunch.trainers import PROGRAM, goodput, origin, records
from relaunch.trainers.pages import graph, numbers
from relaunch.trainers.pages.blocks import Code, Facts, Heading, Note, Prose, Table
from relaunch.trainers.pages.told import Told
from relaunch.trainers.pages.told import layers as layers_recorded

ACROSS = 4  # runs that are columns of a table; more are its rows
LAYERS = 120  # rows of a table of layers, and nodes of a graph: beyond it nobody reads them


def results(runs: list[Told]) -> list:
    """What came out: a row for each run."""
    every = dict.fromkeys(name for run in runs for name in run.last("val"))
    names = [name for name in every if name not in ("step", "samples", "epoch", "split")]
    head = ["run", "state", "step", "epoch", "scored on"]
    head += [numbers.NAMES.get(name, (name, ""))[0] for name in names]
    head += ["best", "at step", "trained for", "samples/s, median"]
    rows = []
    for run in runs:
        last, best, total = run.last("val"), run.best(), run.plan.get("total_steps")
        speed = middle([value for _, value in run.curve("train", "samples_per_s")])
        steps = f"{run.step:,}" + (f" / {total:,}" if total and total != run.step else "")
        epoch = (run.last("train") or last).get("epoch")
        rows.append(
            [
                run.name,
                run.state,
                steps,
                f"{epoch:.3g}" if isinstance(epoch, (int, float)) else "–",
                run.named("val") if last else "–",
                *(numbers.metric(name, last.get(name)) for name in names),
                numbers.metric(best[0], best[1]) if best else "–",
                f"{best[2]:,}" if best else "–",
                goodput.amount(records.seconds(run.run)),
                numbers.metric("samples_per_s", speed),
            ]
        )
    if len(runs) == 1:
        told = dict(zip(head[1:], rows[0][1:]))
        step = told.pop("at step")
        return [
            Facts([*(told | ({"best": f"{told['best']} at step {step}"} if step != "–" else {})).items()])
        ]
    return [Table(head, rows, sortable=True)]


def middle(values: list[float]) -> float | None:
    """The median, which the first window's warm-up does not move."""
    return sorted(values)[len(values) // 2] if values else None


def missing(runs: list[Told]) -> list[Note]:
    """What is unfinished or damaged."""
    notes = []
    for run in runs:
        if run.damaged:
            told = ", ".join(run.damaged)
            notes.append(Note(f"{run.name}: {told} cannot be read."))
        if run.state == "done":
            continue
        reason = run.status.get("reason") or ""
        text = f"{run.name} is {run.state}" + (f": {reason}." if reason else ".")
        if run.state in ("preempted", "stopped", "crashed", "failed"):
            workload = quoted(run.workload)
            text += " " + "To go on:" + f" relaunch train {workload} --run {run.run.argument} --resume auto"
        notes.append(Note(text))
    return notes


def compared(facts: list[dict[str, str]], runs: list[Told]) -> list:
    """The rows that all runs share, as facts, and those that differ, as a table; facts are in one order."""
    names = list(dict.fromkeys(name for each in facts for name in each))
    values = {name: [each.get(name, "–") for each in facts] for name in names}
    same = [(name, found[0]) for name, found in values.items() if len(set(found)) == 1]
    differ = [name for name, found in values.items() if len(set(found)) > 1]
    blocks: list = []
    if differ and len(runs) <= ACROSS:
        rows = [[name, *values[name]] for name in differ]
        blocks.append(Table(["", *(run.name for run in runs)], rows, "What differs"))
    elif differ:
        rows = [[run.name, *(values[name][i] for name in differ)] for i, run in enumerate(runs)]
        blocks.append(Table(["run", *differ], rows, "What differs", sortable=True))
    if same:
        blocks += [Prose("The same in all:")] * bool(differ or len(runs) > 1)
        blocks.append(Facts(same))
    return blocks


def machine(runs: list[Told]) -> list:
    """Hardware and versions, as plan.json has them."""
    facts = []
    for run in runs:
        plan = run.plan
        found: dict[str, str] = {}
        if "host" in plan:
            found["host"] = plan["host"]
        for key, text in MACHINE.items():
            if plan.get(key):
                found[text] = str(plan[key])
        if "device" in plan:
            found["device"] = f"{plan['device']} ({plan.get('device_name', '?')})"
        if "world" in plan:
            found["processes"] = str(plan["world"])
        if "threads" in plan:
            found["threads a process"] = str(plan["threads"])
        if "precision" in plan:
            found["precision"] = "fp32" if plan["precision"] == "no" else plan["precision"]
        if plan.get("config"):
            found["accelerate config"] = plan["config"]
        versions = plan.get("versions")
        if isinstance(versions, dict):
            found |= {str(name): str(value) for name, value in versions.items()}
        facts.append(found)
    if not any(facts):
        return [Note("There is no plan.json that says on what it ran.")]
    return compared(facts, runs)


# of plan.json, which earlier versions did not record
MACHINE = {"cpu": "CPU", "cpus": "logical CPUs", "memory_gb": "memory, GB", "os": "operating system"}


def settings(runs: list[Told]) -> list:
    """config.json of each, and where they differ."""
    facts = []
    for run in runs:
        config = dict(run.config)
        options = config.pop("options", {})
        config |= options if isinstance(options, dict) else {}
        code = config.pop("code", None)
        found = {name: written(value) for name, value in config.items()}
        if isinstance(code, dict):
            found["code"] = str(code.get("file") or code.get("word") or "a workload of one's own")
        if begun := origin.said(origin.of(run.run)):
            found["begun"] = begun
        if run.plan.get("data_hash"):
            found["data hash"] = run.plan["data_hash"][:12]
        facts.append(found)
    if not any(facts):
        return [Note("There is no config.json that says with what settings.")]
    return compared(facts, runs)


def written(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def commands(runs: list[Told]) -> list:
    lines = []
    for run in runs:
        words = run.plan.get("command")
        if words:
            verb = str(words[0]).rpartition(".")[2]
            lines.append(command(["relaunch", verb, *map(str, words[1:])]))
    return [Code("\n".join(dict.fromkeys(lines)))] if lines else []


# the model ------------------------------------------------------------------------------------------


def models(runs: list[Told], root: str | None) -> list:
    """Layers and graph of each model that differs from the others."""
    groups: dict[str, list[Told]] = {}
    found: dict[str, dict] = {}
    made: dict[str, dict | str] = {}
    blocks: list = []
    for run in runs:
        layers = layers_of(run, root, made)
        if isinstance(layers, Note):
            blocks.append(layers)
            continue
        key = json.dumps(layers.get("layers"))
        groups.setdefault(key, []).append(run)
        found[key] = layers
    for key, of in groups.items():
        if len(groups) > 1:
            blocks.append(Heading(", ".join(run.name for run in of), 3))
        blocks += model(found[key], of[0].config.get("arch") or of[0].workload)
    return blocks


def layers_of(run: Told, root: str | None, made: dict[str, dict | str]) -> dict | Note:
    """What the run recorded of its model's layers; of a workload of ours, what its settings make again.

    `made`: what was made for other runs, by the settings that a model depends on.
    """
    if recorded := layers_recorded(run.run):
        return recorded
    if run.config.get("code"):
        word = quoted(str(run.run.code))
        return Note(
            f"{run.name} did not record its layers, and a report executes no workload of yours: "
            f"relaunch summary {word} lists them."
        )
    key = json.dumps([run.config.get(name) for name in ("workload", "data", "arch", "options")])
    if key not in made:
        made[key] = again(run, root)
    found = made[key]
    return found if isinstance(found, dict) else Note(f"No layers of {run.name}: {found}.")


def again(run: Told, root: str | None) -> dict | str:
    """The layers that the settings of one of our workloads make; or why there are none. Takes seconds."""
    words = [sys.executable, PROGRAM, "summary", "--settings", json.dumps(run.config), "--json"]
    words += ["--data-root", root] if root else []
    done = subprocess.run(words, capture_output=True, text=True)
    try:
        said = json.loads(done.stdout)
        return said if "layers" in said else said["failure"]["what"]
    except (ValueError, KeyError, TypeError):
        return f"relaunch summary ended with {done.returncode}"


def model(layers: dict, name: str) -> list:
    """The table of its layers, and the graph of what flows through them."""
    rows = [
        [
            row["name"] or "–",
            row["type"],
            "×".join(map(str, row["output"])),
            f"{row['parameters']:,}",
            numbers.many(row["flops"]),
        ]
        for row in layers["layers"][:LAYERS]
    ]
    caption = (
        f"{layers['parameters']:,} parameters, {numbers.many(layers['flops'])} FLOP for one input "
        "(2 × MAC; of products, convolutions and attention)"
    )
    if len(layers["layers"]) > LAYERS:
        caption += f"; the first {LAYERS} of {len(layers['layers']):,} layers"
    head = ["layer", "type", "output", "parameters", "FLOP"]
    blocks: list = [Table(head, rows, caption)]
    nodes, edges = layers.get("nodes") or [], layers.get("edges") or []
    if nodes and len(nodes) <= LAYERS:
        title = f"The graph of {name}: what flows from which layer to which"
        blocks.append(graph.graph(nodes, [(a, b) for a, b in edges], title))
    elif nodes:
        blocks.append(Note(f"Its graph has {len(nodes):,} nodes: TensorBoard shows it part by part."))
    return blocks
