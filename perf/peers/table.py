"""The one table: a row for each figure, a column for each server, the rows that outpour does not lead first."""

from statistics import median

OURS = "outpour"
NAMES = {
    "nats": "NATS",
    "socketio": "socket.io",
    "uwebsockets": "uWS.js",
    "naive_tungstenite": "tungst.",
    "naive_fastwebsockets": "fastws.",
}
LABEL_WIDTH = 40
WIDTH = 11


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

    def spread(self, server, key):
        """How far the rounds lie apart, as a share of their median; none of one round."""
        values = self.values.get((server, key), [])
        if len(values) < 2 or not median(values):
            return None
        return (max(values) - min(values)) / median(values)


def compose(rows, servers, figures):
    """The whole text below the heading."""
    led, lost = [], []
    for row in rows:
        if all(figures.median(server, row.key) is None for server in servers):
            continue
        (lost if beaten_by(row, servers, figures) else led).append(row)
    lines = [heading(servers)]
    lines += [line(row, servers, figures) for row in lost]
    if lost:
        lines.append("")
    lines += [line(row, servers, figures) for row in led]
    lines += [""] + legend(led, lost, servers, figures)
    return "\n".join(lines) + "\n"


def beaten_by(row, servers, figures):
    """The servers whose figure is better than ours; all that have one where we have none."""
    ours = figures.median(OURS, row.key)
    others = [server for server in servers if server != OURS]
    measured = [server for server in others if figures.median(server, row.key) is not None]
    return [server for server in measured if ours is None or row.is_better(figures.median(server, row.key), ours)]


def heading(servers):
    names = "".join(NAMES.get(server, server).rjust(WIDTH) for server in servers)
    return " " * LABEL_WIDTH + names


def line(row, servers, figures):
    better = beaten_by(row, servers, figures)
    cells = []
    for server in servers:
        value = figures.median(server, row.key)
        cell = "-" if value is None else row.form(value)
        cells.append((cell + ("*" if server in better else "")).rjust(WIDTH))
    return row.label.ljust(LABEL_WIDTH) + "".join(cells)


def legend(led, lost, servers, figures):
    lines = []
    for row in lost:
        ours = figures.median(OURS, row.key)
        for server in beaten_by(row, servers, figures):
            value = figures.median(server, row.key)
            mine = "has none" if ours is None else row.form(ours)
            lines.append(f"* {row.label}: {NAMES.get(server, server)} {row.form(value)}, {OURS} {mine}")
    if led and not lost:
        lines.append(f"{OURS} leads every row.")
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
