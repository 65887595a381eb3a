"""The built server as a process for the Python suites: on a free port, ready when it says so, always stopped.

BINARY_UNDER_TEST names another binary than target/release/outpour.
"""

import os
import pathlib
import random
import socket
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("BINARY_UNDER_TEST", str(REPOSITORY / "target/release/outpour"))
START_S = 20

APP_ID, KEY, SECRET = "1001", "app-key", "app-secret"


class Server:
    """A context manager; `port` is where it listens."""

    def __init__(self, *flags):
        self.port = free_port()
        self.flags = flags

    def __enter__(self):
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BINARY, "serve", "--address", f"127.0.0.1:{self.port}", *self.flags],
            # A suite says what it wants by flags.
            env={name: value for name, value in os.environ.items() if not name.startswith("OUTPOUR_")},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
        )
        try:
            self._listens()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind, *_):
        ended = self.process.poll()
        self._stop()
        if ended is not None and kind is None:
            raise RuntimeError(f"the server died with {ended}:\n{self.said()}")

    def said(self):
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def _listens(self):
        deadline = time.monotonic() + START_S
        while f"listens on 127.0.0.1:{self.port}" not in self.said():
            if self.process.poll() is not None:
                raise RuntimeError(f"{BINARY} ended with {self.process.returncode} before it listened:\n{self.said()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {START_S} s for {BINARY} to listen on {self.port}:\n{self.said()}")
            time.sleep(0.01)
        socket.create_connection(("127.0.0.1", self.port), timeout=START_S).close()

    def _stop(self):
        self.process.kill()
        self.process.wait()


def free_port():
    """A port that nobody has, below those that the kernel gives to outgoing connections."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(min(15_000, low - 5_000), low)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port in 100 attempts")
