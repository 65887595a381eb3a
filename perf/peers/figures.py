"""The figures of one run, out of what `outpour bench --json` wrote (its shape: src/load/result.rs)."""

import base64
import struct
from statistics import median


def of_fanout(results, prefix):
    """A run at one rate: `prefix` names the figures."""
    step = results["steps"][-1]
    due = step["accepted"] * (step["subscribers"] // max(step["channels"], 1))
    figures = {f"{prefix} lost": share(step["disorder"]["lost"], due)}
    complaint = complaint_of(results)
    if complaint:
        return figures, complaint
    delays = Histogram(step["latency"]["delivery"])
    figures[f"{prefix} deliveries/s"] = step["deliveries_per_s"]
    for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        figures[f"{prefix} {name}"] = delays.quantile(quantile)
    if step["server"]:
        figures[f"{prefix} cpu"] = step["server"]["cpu_us_per_delivery"]
    return figures, None


def of_knee(results, prefix):
    if results["knee"] is None:
        last = results["steps"][-1]["outcome"] if results["steps"] else "nothing was tried"
        return {}, f"no rate was kept: {outcome_of(last)}"
    step = results["steps"][results["knee"]]
    complaint = complaint_of(results)
    if complaint:
        return {}, complaint
    return {f"{prefix} deliveries/s": step["deliveries_per_s"]}, None


def of_connect(results, prefix):
    complaint = complaint_of(results)
    failed = sum(storm["failed"] for storm in results["storms"])
    if failed and not complaint:
        complaint = f"{failed} attempts to connect failed and were made again"
    figures = {}
    for storm in results["storms"]:
        figures.setdefault(f"{prefix} {storm['kind']}", []).append(storm["handshakes_per_s"])
        if storm["server_cpu_us_per_handshake"] is not None:
            figures.setdefault(f"{prefix} {storm['kind']} cpu", []).append(storm["server_cpu_us_per_handshake"])
    return {key: median(values) for key, values in figures.items()}, complaint


def of_idle(results, prefix):
    memory = results["memory"]
    if not memory or memory["server_bytes_per_connection"] is None:
        return {}, complaint_of(results) or "no memory was read"
    return {f"{prefix} bytes": memory["server_bytes_per_connection"]}, complaint_of(results)


def complaint_of(results):
    """Why the figures of a run may not be believed; none if they may."""
    verdict = results["verdict"]
    if verdict == "valid":
        return None
    if "invalid" in verdict:
        return "; ".join(verdict["invalid"]["why"])
    evidence = verdict["failed"]["evidence"]
    first = f": {evidence[0]['fault']}, expected {evidence[0]['expected']}, seen {evidence[0]['seen']}" if evidence else ""
    return f"failed{first}"


def outcome_of(outcome):
    return outcome if isinstance(outcome, str) else next(iter(outcome.values())).get("why", str(outcome))


def share(part, whole):
    return part / whole if whole else 0.0


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
