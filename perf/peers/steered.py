"""A private network namespace whose loopback hands received packets to a core of our choice, as a network card would.

On loopback the receiver's TCP work runs on the sender's core; receive packet steering (RPS, the kernel's
Documentation/networking/scaling.rst) brings it to the reader's. `outpour bench --netns` does the same for a server that it
starts itself (src/load/netns.rs); here server and generator are started one by one, so the comparison is moved as a whole.
"""

import os
import subprocess
import sys
from pathlib import Path

INSIDE = "PEERS_NETNS"
STEERED_TO = Path("/sys/class/net/lo/queues/rx-0/rps_cpus")
# The packets that wait for the core that they are steered to: of 1,000, the kernel's default, a fan-out to thousands has
# most dropped and sent again 200 ms later. The setting is the machine's, and is put back.
QUEUE = Path("/proc/sys/net/core/netdev_max_backlog")
QUEUE_PACKETS = 100_000


def is_inside():
    return INSIDE in os.environ


def run_inside(words):
    """Runs this program again, in the namespace; its exit status."""
    before = QUEUE.read_text()
    QUEUE.write_text(str(max(QUEUE_PACKETS, int(before))))
    inside = subprocess.Popen(
        ["unshare", "--net", "--mount", sys.executable, sys.argv[0], *words], env={**os.environ, INSIDE: "1"}
    )
    try:
        return inside.wait()
    finally:
        inside.terminate()
        inside.wait()
        QUEUE.write_text(before)


def steer(core):
    """Inside: lifts the loopback, and has `core` process what is received."""
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Masks are hexadecimal, 32 cores a group, the highest first.
    groups = [f"{(1 << core) >> 32 * group & 0xFFFFFFFF:08x}" for group in range(core // 32, -1, -1)]
    STEERED_TO.write_text(",".join(groups))
