"""RFC 6455 and RFC 7692 by Autobahn's own cases, against the server's echo endpoint.

Prints how many cases had which behaviour, names every case that is not strictly right, and fails on any of them.
`conformance.py OUTPUT [CASE...]` writes the report to the directory OUTPUT; cases (`6.4.*`) select.
"""

import collections
import json
import pathlib
import subprocess
import sys
import time

from server import Server

# What a case may end with. INFORMATIONAL cases have no right answer.
GOOD = {"OK", "INFORMATIONAL"}
# 301 about frames and messages (1 to 10), 216 about compression (12 and 13).
CASES = 517
# The suite waits for quiet sockets in many cases; two at a time overlap that and still let each be timed.
PARALLEL = 2
# It takes 215 s of CPU time on two cores, the server included; where others wanted them six times over it took 634 s.
BOUND_S = 900


def main(output, cases):
    tool = pathlib.Path(sys.executable).parent / "kosoku"
    began = time.monotonic()
    with Server("--echo", "/echo") as server:
        command = [str(tool), f"127.0.0.1:{server.port}/echo", "-p", str(PARALLEL), "-o", output]
        for case in cases:
            command += ["-i", case]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND_S)
        index = pathlib.Path(output, "index.json")
        if not index.exists():
            print(run.stdout.decode(errors="replace")[-4000:])
            print(f"kosoku ended with {run.returncode} and without a report; the server said:\n{server.said()}")
            return 1
        agents = json.loads(index.read_text())
        said = server.said()
    (results,) = agents.values()
    for kind in ("behavior", "behaviorClose"):
        counts = collections.Counter(result[kind] for result in results.values())
        print(f"{kind}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    bad = {case: result for case, result in results.items() if not {result["behavior"], result["behaviorClose"]} <= GOOD}
    for case, result in sorted(bad.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        print(f"case {case}: {result['behavior']}, close {result['behaviorClose']} {result.get('remoteCloseCode')} ({output}/{result['reportfile']})")
    print(f"{len(results)} cases in {time.monotonic() - began:.0f} s, {len(bad)} not right")
    if not cases and len(results) != CASES:
        print(f"{CASES} cases were expected: has the suite been cut?")
        return 1
    if bad and said.strip():
        print(f"the server said:\n{said[-4000:]}")
    return 1 if bad else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
