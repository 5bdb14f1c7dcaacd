"""The fields of a run's small files and their types: what readers may rely on, whatever a file holds.

shaped({"state": "done", "step": "x"}, STATUS)    # {"state": "done"}
"""

from __future__ import annotations

from collections.abc import Iterable

NUMBER = (int, float)
STATUS = {
    "state": str,
    "code": int,
    "step": int,
    "saved": int,
    "start": str,
    "reason": str,
    "time": str,
    "pid": int,
    "seconds": NUMBER,
}
PLAN = {
    "command": list,
    "config": str,
    "world": int,
    "device": str,
    "device_name": str,
    "host": str,
    "data": str,
    "data_hash": str,
    "eval_split": str,
    "precision": str,
    "steps_per_epoch": int,
    "total_steps": int,
}
TIME = {
    "first": NUMBER,
    "until": NUMBER,
    "paused": int,
    "starts": int,
    "from_step": int,
    "from_samples": int,
    "step": int,
    "samples": int,
    "between": NUMBER,
    "causes": dict,
    "saves": dict,
    "ranks": list,
}
CONFIG = {"workload": str, "data": str, "save_every": (int, str), "batch_size": int}
PROFILE = {"schema": int, "workload": str, "data": str, "settings": list}
SETTING = {
    "config": str,
    "device": str,
    "device_name": str,
    "trace": str,
    "phases": dict,
    "operators": list,
    **dict.fromkeys(("batch_size", "steps", "world", "threads"), int),
    **dict.fromkeys(("step_ms", "sample_us", "profiled_ms", "independent_ms"), NUMBER),
}
OPERATOR = {
    "name": str,
    **dict.fromkeys(("self_ms", "total_ms", "share", "calls", "memory_mb", "device_ms"), NUMBER),
}
COMPARISON = {"schema": int, "workload": str, "rule": str, "grid": dict, "baseline": str, "cells": list}
LARGEST = 2**53  # of a number that is one: beyond it, or not finite, it is damage


def shaped(values, kinds: dict) -> dict:
    """The fields of a JSON object, less those of another type than `kinds` says; empty for anything else."""
    if not isinstance(values, dict):
        return {}
    return {k: v for k, v in values.items() if k not in kinds or fits(v, kinds[k])}


def fits(value, kind) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, NUMBER) or -LARGEST <= value <= LARGEST


def needed_numbers(values, needed: Iterable[str]) -> bool:
    return isinstance(values, dict) and all(fits(values.get(name), NUMBER) for name in needed)
