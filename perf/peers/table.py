"""The one table: a row for each figure, a column for each server, the rows that outpour does not lead first.

A figure that the generator set and not the server is written with ≥ (≤ where less is better). Two figures are compared only
where the worse of them is the server's own: else the server that looks worse may be the better one. A row where that leaves
open who is ahead is neither won nor lost, and its cells that cannot be told from ours are marked with a question mark.
"""

from statistics import median, median_high, median_low

from figures import Bound

OURS = "outpour"
NAMES = {
    "nats": "NATS",
    "socketio": "socket.io",
    "uwebsockets": "uWS.js",
    "naive_tungstenite": "tungst.",
    "naive_fastwebsockets": "fastws.",
}
LABEL_WIDTH = 40
WIDTH = 13


class Row:
    """A figure: its key, what it is called, which way is better, and how it is written."""

    def __init__(self, key, label, is_better, form):
        self.key, self.label, self.is_better, self.form = key, label, is_better, form


def more(one, other):
    return one > other


def less(one, other):
    return one < other


def whole(value):
    return f"{value:,.0f}"


def microseconds(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def milliseconds(value):
    return microseconds(value / 1000)


def percent(value):
    return "0" if value == 0 else f"{100 * value:.2g} %"


class Figures:
    """All figures of all servers, round by round."""

    def __init__(self):
        self.values = {}
        self.complaints = {}
        # Why there are fewer rounds than were asked for.
        self.ended = None

    def add(self, server, figures, complaints):
        for key, value in figures.items():
            if value is not None:
                self.values.setdefault((server, key), []).append(value)
        for work, complaint in complaints:
            self.complaints.setdefault((server, work), []).append(complaint)

    def median(self, server, key):
        values = self.values.get((server, key))
        return median(values) if values else None

    def is_bound(self, server, row):
        """Whether the median is a bound: the servers' own values for what the generator set may move it."""
        values = self.values.get((server, row.key), [])
        if not values:
            return False
        # A value that is beyond the middle already leaves the median where it is, however much better the server is.
        middle = median_high(values) if row.is_better is more else median_low(values)
        return any(isinstance(value, Bound) and not row.is_better(value, middle) for value in values)

    def spread(self, server, key):
        """How far the rounds lie apart, as a share of their median; none of one round."""
        values = self.values.get((server, key), [])
        if len(values) < 2 or not median(values):
            return None
        return (max(values) - min(values)) / median(values)


def compose(rows, servers, figures):
    """The whole text below the heading."""
    led, open_, lost = [], [], []
    for row in rows:
        if all(figures.median(server, row.key) is None for server in servers):
            continue
        if beaten_by(row, servers, figures):
            lost.append(row)
        elif undecided(row, servers, figures):
            open_.append(row)
        else:
            led.append(row)
    lines = [heading(servers)]
    for group in (lost, open_):
        lines += [line(row, servers, figures) for row in group]
        if group:
            lines.append("")
    lines += [line(row, servers, figures) for row in led]
    lines += [""] + legend(led, open_, lost, servers, figures)
    return "\n".join(lines) + "\n"


def beaten_by(row, servers, figures):
    """The servers whose figure is better than ours, if ours is our own; all that have one where we have none."""
    ours = figures.median(OURS, row.key)
    better = [server for server in measured(row, servers, figures)
              if ours is None or row.is_better(figures.median(server, row.key), ours)]
    return [server for server in better if not figures.is_bound(OURS, row)]


def undecided(row, servers, figures):
    """The servers of which nobody knows whether they are ahead of ours: the worse of both figures is the generator's."""
    ours = figures.median(OURS, row.key)
    if ours is None:
        return []
    open_ = []
    for server in measured(row, servers, figures):
        theirs = figures.median(server, row.key)
        # Of equal figures either may be the worse.
        worse = [name for name, one, other in ((OURS, ours, theirs), (server, theirs, ours)) if not row.is_better(one, other)]
        if any(figures.is_bound(name, row) for name in worse):
            open_.append(server)
    return open_


def measured(row, servers, figures):
    """Those but ours that have the figure."""
    return [server for server in servers if server != OURS and figures.median(server, row.key) is not None]


def heading(servers):
    names = "".join(NAMES.get(server, server).rjust(WIDTH) for server in servers)
    return " " * LABEL_WIDTH + names


def line(row, servers, figures):
    better, open_ = beaten_by(row, servers, figures), undecided(row, servers, figures)
    cells = []
    for server in servers:
        mark = "*" if server in better else "?" if server in open_ else ""
        cells.append((written(row, server, figures) + mark).rjust(WIDTH))
    return row.label.ljust(LABEL_WIDTH) + "".join(cells)


def written(row, server, figures):
    """A cell: the median, with a sign if it is a bound."""
    value = figures.median(server, row.key)
    if value is None:
        return "-"
    sign = "" if not figures.is_bound(server, row) else "≥" if row.is_better is more else "≤"
    return sign + row.form(value)


def legend(led, open_, lost, servers, figures):
    lines = []
    for row in lost:
        for server in beaten_by(row, servers, figures):
            ours = "has none" if figures.median(OURS, row.key) is None else written(row, OURS, figures)
            lines.append(f"* {row.label}: {NAMES.get(server, server)} {written(row, server, figures)}, {OURS} {ours}")
    for row in open_ + [row for row in lost if undecided(row, servers, figures)]:
        theirs = ", ".join(f"{NAMES.get(server, server)} {written(row, server, figures)}" for server in undecided(row, servers, figures))
        lines.append(f"? {row.label}: the generator set the worse figure, so who is ahead is not known: {OURS} {written(row, OURS, figures)}, {theirs}")
    if led and not lost:
        lines.append(f"{OURS} leads every row{' but those' if open_ else ''}.")
    if figures.complaints:
        lines += ["", "Runs without a figure (-), or with a remark:"]
    for (server, work), complaints in figures.complaints.items():
        times = f" ({len(complaints)} rounds)" if len(complaints) > 1 else ""
        lines.append(f"  {NAMES.get(server, server)}, {work}: {complaints[0]}{times}")
    return lines


def spreads(rows, servers, figures):
    """How far to believe the medians: for each cell, the rounds' highest less their lowest, in percent of the median."""
    lines = []
    for row in rows:
        shares = [figures.spread(server, row.key) for server in servers]
        if any(share is not None for share in shares):
            cells = "".join(("-" if share is None else f"{100 * share:.0f}").rjust(WIDTH) for share in shares)
            lines.append(row.label.ljust(LABEL_WIDTH) + cells)
    if not lines:
        return ""
    return "\n".join(["Highest less lowest of the rounds, % of the median:", heading(servers)] + lines) + "\n"
