"""The figures of one run, out of what `outpour bench --json` wrote (its shape: src/load/result.rs)."""

import base64
import struct


# Why a run of the generator was not fit, if that touches delays alone.
SLIPPED = "the schedule slipped"
# Connections at which memory is read, of a server that holds so many.
CONNECTIONS_MOST = 19_000
# A generator that took more of a core was the limit itself (`GENERATOR_BUSY_MAX` in src/load/result.rs).
GENERATOR_BUSY_MAX = 0.95
# The share of a storm's connections that `most_subscribed_ms` is the time of.
MOST = 0.95
# What a flood left in a server's queues when its time was up: whether it is lost is not known.
UNDER_WAY = "deliveries were under way"


class Bound(float):
    """A figure that the generator set: the server's own is as good or better."""


def of_paced_and_knee(results):
    """Steps at given rates, and a search for the knee where there was one."""
    figures, complaints = {}, []
    for step in results["steps"]:
        if step["kind"] == "fixed":
            add_paced(step, figures, complaints)
    searched = [step for step in results["steps"] if step["kind"] in ("search", "confirm")]
    if not searched:
        return figures, complaints
    subscribers = searched[-1]["subscribers"]
    what = f"knee of {subscribers:,}"
    if results["knee"] is None:
        complaints.append((what, f"no rate was kept: {outcome_of(searched[-1]['outcome'])}"))
    else:
        rate = results["steps"][results["knee"]]["deliveries_per_s"]
        if results.get("knee_is_lower_bound"):
            complaints.append((what, "the generator could offer no more: a lower bound"))
            rate = Bound(rate)
        figures[f"knee {subscribers} deliveries/s"] = rate
    return figures, complaints


def add_paced(step, figures, complaints):
    rate = f"{step['offered_per_s']:g}"
    prefix, what = f"paced {rate}", f"{rate} a second"
    figures[f"{prefix} lost"] = lost_share(step)
    outcome = step["outcome"]
    if outcome != "kept":
        complaints.append((what, outcome_of(outcome)))
    # A publish that left some milliseconds late was late in arriving, and cost what it costs.
    is_slip_alone = "invalid" in outcome and all(why.startswith(SLIPPED) for why in outcome["invalid"]["why"].split("; "))
    if (outcome == "kept" or is_slip_alone) and step["server"]:
        figures[f"{prefix} cpu"] = step["server"]["cpu_us_per_delivery"]
    if outcome == "kept":
        delays = Histogram(step["latency"]["delivery"])
        for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            figures[f"{prefix} {name}"] = delays.quantile(quantile)


def of_flood(results):
    """What was delivered, over the time that it took; what was lost stands beside it."""
    step = results["steps"][-1]
    prefix, what = f"flood {step['subscribers']}", f"flood to {step['subscribers']:,}"
    outcome = step["outcome"]
    figures, complaints = {}, []
    if UNDER_WAY not in outcome_of(outcome):
        figures[f"{prefix} lost"] = lost_share(step)
    if outcome != "kept":
        complaints.append((what, outcome_of(outcome)))
    if "invalid" not in outcome and step["deliveries"]:
        figures[f"{prefix} deliveries/s"] = step["deliveries_per_s"]
        if step["server"]:
            figures[f"{prefix} cpu"] = step["server"]["cpu_us_per_delivery"]
    return figures, complaints


def of_connections(results):
    """Storms, and the memory of connections that do nothing. The first storm is that of the fresh server."""
    figures, complaints = {}, []
    if results["verdict"] != "valid":
        complaints.append(("connections", str(results["verdict"])))
    failed = sum(storm["failed"] for storm in results["storms"])
    if failed:
        complaints.append(("connections", f"{failed} attempts to connect failed and were made again"))
    values, remarks = of_storms(results, "storm", "connections")
    figures.update(values)
    complaints += remarks
    memory = results["memory"]
    if memory:
        most = memory["readings"][-1]["connections"]
        if most < CONNECTIONS_MOST:
            complaints.append(("connections", f"it holds fewer here: memory and storms are those of {most:,} and half as many"))
        figures["idle bytes"] = memory["server_bytes_per_connection"]
        figures["idle bytes in all"] = memory["server_bytes_per_connection_from_none"]
    return figures, complaints


def of_storms_by_message(results):
    """Storms whose clients were greeted first and then subscribed."""
    complaints = [] if results["verdict"] == "valid" else [("storms by message", str(results["verdict"]))]
    figures, remarks = of_storms(results, "storm by message", "storms by message")
    return figures, complaints + remarks


def of_storms(results, prefix, what):
    figures, complaints = {}, []
    for kind in ("connect", "reconnect"):
        storm = next((storm for storm in results["storms"] if storm["kind"] == kind), None)
        if not storm:
            continue
        # Results of a time when storms were not watched have neither.
        busy, most_ms = storm.get("generator_busy_share"), storm.get("most_subscribed_ms")
        is_bound = busy is not None and busy > GENERATOR_BUSY_MAX
        form = Bound if is_bound else float
        if is_bound:
            complaints.append((what, f"the generator was the limit of the {kind} storm ({100 * busy:.0f} % busy): a lower bound"))
        figures[f"{prefix} {kind}"] = form(storm["handshakes_per_s"])
        figures[f"{prefix} {kind} cpu"] = storm["server_cpu_us_per_handshake"]
        if most_ms:
            # A rate and no time: some servers hold fewer connections, and their storms are smaller.
            figures[f"{prefix} {kind} most"] = form(MOST * storm["connections"] / (most_ms / 1000))
    return figures, complaints


def knee_of(results):
    """Messages a second at the knee, if there is one."""
    return None if results["knee"] is None else results["steps"][results["knee"]]["offered_per_s"]


def lost_share(step):
    due = step["accepted"] * (step["subscribers"] // max(step["channels"], 1))
    return step["disorder"]["lost"] / due if due else 0.0


def outcome_of(outcome):
    if isinstance(outcome, str):
        return outcome
    kind, told = next(iter(outcome.items()))
    return f"{kind}: {told['why']}"


class Histogram:
    """HdrHistogram's V2 encoding, not compressed, in base64: https://github.com/HdrHistogram/HdrHistogram, V2 format."""

    COOKIE = 0x1C849303
    HEADER = struct.Struct(">iiiiqqd")

    def __init__(self, text):
        data = base64.b64decode(text)
        cookie, length, _, digits, lowest, _, _ = self.HEADER.unpack_from(data)
        # The low bits of the second byte tell the width of counts, which this encoding does not use.
        if cookie & ~0xF0 != self.COOKIE & ~0xF0:
            raise ValueError("this is no histogram")
        self.unit_magnitude = max(lowest.bit_length() - 1, 0)
        sub_buckets_magnitude = (2 * 10**digits - 1).bit_length()
        self.half_magnitude = sub_buckets_magnitude - 1
        self.counts = []
        position, end = self.HEADER.size, self.HEADER.size + length
        index = 0
        while position < end:
            value, position = zigzag(data, position)
            if value < 0:
                index -= value
                continue
            if value:
                self.counts.append((index, value))
            index += 1

    def quantile(self, quantile):
        """The highest value that counts as the same as the one that this share does not exceed."""
        total = sum(count for _, count in self.counts)
        seen = 0
        for index, count in self.counts:
            seen += count
            if seen >= quantile * total:
                return self.highest_equivalent(index)
        return None

    def highest_equivalent(self, index):
        bucket = (index >> self.half_magnitude) - 1
        half = 1 << self.half_magnitude
        sub_bucket = (index & (half - 1)) + half
        if bucket < 0:
            bucket, sub_bucket = 0, sub_bucket - half
        shift = bucket + self.unit_magnitude
        return ((sub_bucket + 1) << shift) - 1


def zigzag(data, position):
    """A LEB128 number of at most nine bytes, the ninth whole, in zig-zag."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        if shift == 56:
            value |= byte << shift
            break
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (value >> 1) ^ -(value & 1), position
