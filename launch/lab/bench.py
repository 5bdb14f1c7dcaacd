"""What a lab's page is built of: its steps and their ends, its language, and the blocks that labs share.

bench.curve("batch64", "loss")    # {"train": [(0.1, 2.3), …], "val": [(1.0, 0.06)]}
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from relaunch.launch.facts import Facts
from relaunch.launch.lab import engine, proofs
from relaunch.launch.lab.engine import End
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.lab.words import Say
from relaunch.launch.runs import duration
from relaunch.trainers import goodput, records
from relaunch.trainers.pages import charts, graph
from relaunch.trainers.pages.blocks import Chart, Code, Heading, Note, Prose, Table

DASH = "–"


@dataclass(frozen=True)
class Bench:
    lab: Lab
    steps: dict[str, Step]
    ends: dict[str, End]
    here: Facts
    say: Say

    def done(self, *names: str) -> bool:
        return all(name in self.ends and self.ends[name].state.kind == "done" for name in names)

    def missing(self, *names: str) -> list:
        """A note for each of these steps that is not done: why, and the command that fills it in."""
        blocks: list = []
        for name in names:
            if self.done(name):
                continue
            step, state = self.steps[name], self.ends[name].state
            facts = {
                "step": name,
                "again": engine.again(self.lab),
                "leaves": step.leaves.parent if step.leaves.suffix else step.leaves,
                "log": self.lab.path("logs", f"{name}.log"),
                "name": name,
            } | state.facts
            blocks.append(Note(self.say(state.why or "lacks", **facts)))
            if state.kind == "cannot":
                blocks.append(Code(folded(step.typed)))
        return blocks

    def heading(self, key: str, **facts) -> Heading:
        """Its link has the same name in both languages."""
        return Heading(self.say(key, **facts), id=key.replace("_", "-"))

    def under(self, key: str, **facts) -> Heading:
        return Heading(self.say(key, **facts), level=3)

    def prose(self, key: str, **facts) -> Prose:
        return Prose(self.say(key, **facts))

    # what runs tell ---------------------------------------------------------------------------------------

    def records(self, name: str, split: str) -> list[dict]:
        return [r for r in records.metrics(self.lab.run(name)) if r["split"] == split]

    def last(self, name: str, split: str, field: str) -> float | None:
        found = [r[field] for r in self.records(name, split) if isinstance(r.get(field), (int, float))]
        return found[-1] if found else None

    def curve(self, name: str, field: str) -> dict[str, list[tuple[float, float]]]:
        """By split: (epoch, value)."""
        return {
            split: [
                (r["epoch"], r[field])
                for r in self.records(name, split)
                if isinstance(r.get(field), (int, float)) and isinstance(r.get("epoch"), (int, float))
            ]
            for split in ("train", "val")
        }

    def curves(self, names: dict[str, str], fields: Iterable[tuple[str, str]], val: str) -> list[Chart]:
        """A chart for each (field, its words.py key), with the train and val curves of all runs `names`."""
        made = []
        for field, key in fields:
            series = {}
            for name, label in names.items():
                found = self.curve(name, field)
                series |= {f"{label} train".strip(): found["train"], f"{label} {val}".strip(): found["val"]}
            kept = {name: points for name, points in series.items() if points}
            if kept:
                looks = {name: (i // 2, i % 2) for i, name in enumerate(series)}
                chart = charts.lines(kept, "epoch", field, self.say(key), looks=looks)
                made.append(chart)
        return made

    def seconds(self, name: str) -> float:
        return records.seconds(self.lab.run(name))

    def load(self, name: str) -> str:
        """CPU cores that a training kept busy on the mean, where this lab has started it."""
        note = proofs.note(self.lab, self.steps[name])
        if not note.get("seconds") or "cpu_seconds" not in note:
            return DASH
        return self.say("cores", n=f"{note['cpu_seconds'] / note['seconds']:.2f}")

    def table(self, head: Iterable[str], rows: list[list[str]], caption: str = "") -> Table:
        """`head`: keys of words.py."""
        return Table([self.say(key) for key in head], rows, caption)

    def layers(self, name: str) -> list:
        """The layer table that a summary step left, and the missing note where it did not."""
        if not self.done(name):
            return self.missing(name)
        found = records.read(self.steps[name].leaves, {"layers": list, "parameters": int, "flops": int})
        rows = [
            [x["name"], x["type"], "x".join(map(str, x["output"])), f"{x['parameters']:,}", f"{x['flops']:,}"]
            for x in found.get("layers", [])
        ]
        rows.append([self.say("total"), "", "", f"{found['parameters']:,}", f"{found['flops']:,}"])
        return [self.table(("layer", "type", "output", "weights", "flops"), rows, self.say("layers"))]

    def graph(self, name: str) -> list:
        """What flows from which layer to which, of what a summary step left."""
        if not self.done(name):
            return []
        found = records.read(self.steps[name].leaves, {"nodes": list, "edges": list})
        nodes, edges = found.get("nodes", []), [(a, b) for a, b in found.get("edges", [])]
        return [graph.graph(nodes, edges, self.say("graph"))] if nodes else []

    def spent(self, names: Iterable[str]) -> list:
        """Where the time of runs went, as shares of each run's wall time."""
        told = {n: t for n in names if self.done(n) and (t := records.time_spent(self.lab.run(n)))}
        if not told:
            return []
        causes = [c for c in goodput.CAUSES if any(t["causes"].get(c) for t in told.values())]
        head = [self.say("run"), self.say("time"), *(self.say(f"cause_{cause}") for cause in causes)]
        rows = [
            [
                name,
                duration(t["wall"]),
                *(f"{100 * t['causes'].get(c, 0) / t['wall']:.1f} %" if t["wall"] else DASH for c in causes),
            ]
            for name, t in told.items()
        ]
        return [Table(head, rows, self.say("spent"))]


def titled(chart: Chart, caption: str) -> Chart:
    return dataclasses.replace(chart, caption=caption)


def folded(line: str, columns: int = 96) -> str:
    """A command line on several, as a shell takes it: broken before a flag."""
    lines = [""]
    for part in re.split(r" (?=-|>)", line):
        if lines[-1] and len(lines[-1]) + len(part) > columns:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    return DASH if value is None else f"{value:,.{digits}f}{unit}"


def device_name(plan: dict) -> str:
    """What a run was trained on: the GPU's name, or the CPU's where the run recorded it."""
    return str(plan.get("device") == "cpu" and plan.get("cpu") or plan.get("device_name", DASH))


def evaluated(folder: Path) -> dict:
    """What an evaluation wrote beside its predictions: metrics, n, split and step; empty without one."""
    for name in records.names(folder):
        if name.endswith(".json"):
            return records.read(folder / name, {"metrics": dict, "n": int, "split": str, "step": int})
    return {}
