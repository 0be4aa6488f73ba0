"""Processes that a measurement starts: in a folder of their own, ended and removed with it."""

import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

PATIENCE_S = 60
# A shell's NODE_…, PYTHON…, WESS_… or RUST_BACKTRACE would be measured as well.
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}


class Processes:
    """`ends`, an ExitStack, ends them by their ids, the last one first."""

    def __init__(self, ends):
        self.ends = ends
        self.folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="wess-load-")))

    def start(self, *command, **options):
        environment = {**ENVIRONMENT, "HOME": str(self.folder)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, text=True, **options)
        self.ends.callback(end, process)
        return process

    def start_until(self, ready, *command):
        """A process, and what of `ready` it said. It may go on talking."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        too_late = threading.Timer(PATIENCE_S, process.kill)
        too_late.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(ready, line):
                too_late.cancel()
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return process, found
        too_late.cancel()
        raise SystemExit(f"{Path(command[0]).name} did not get ready\n{''.join(said[-20:])}")

    def nats_server(self):
        """The URL of a server with JetStream."""
        options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", self.folder / "js"]
        _, listens = self.start_until(r"Listening for client connections on (\S+)", os.environ["WESS_NATS_SERVER"], *options)
        return f"nats://{listens[1]}"


def end(process):
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
