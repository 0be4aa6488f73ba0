"""How a measurement came about: when, of which sources, by which command, on what. Names neither machine nor folders."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command, wess):
    """What is written beside what `wess` was measured to do by `command`."""
    return {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "commit": commit(), "command": command, "machine": machine(wess)}


def machine(wess):
    """What the figures hold for."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    locked = re.search(r'^name = "wasmtime"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text(), re.MULTILINE)
    facts = {
        "cores": os.cpu_count(),
        "CPU": model[1] if model else platform.machine(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "wess": version(wess, "--version"),
        "Wasmtime in wess": locked[1],
        "nats-server": version(os.environ["WESS_NATS_SERVER"], "--version"),
        "wasmtime serve": version(os.environ["WESS_WASMTIME"], "--version"),
        "node": version("node", "--version"),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def commit():
    """The sources, with a + when they were not as committed."""
    changed = said("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!docs")
    return (said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD").strip() or "unknown") + ("+" if changed else "")


def version(*command):
    """The number in what a program says of itself; nothing where there is no such program."""
    number = re.search(r"\d+\.\d+[\w.+-]*", said(*command))
    return number[0] if number else None


def said(*command):
    """What a program prints; nothing when it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
