"""What tests stand on: sets, runs, processes, hosts, a scheduler."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
