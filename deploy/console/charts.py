"""Options of the charts, made from points. Pure. No text of a topic is ever taken as HTML, as a template, or as a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from deploy.observation.snapshot import NodeRow, NodeSeries, Point, Series

ACCENT: Final = "#5b7cfa"
GOOD: Final = "#12a37a"
WARN: Final = "#d98a00"
BAD: Final = "#e5484d"
_CLUSTERS: Final = ("#5b7cfa", "#12a37a", "#c561e0", "#e08b3a", "#2aa7c9", "#d7558a", "#8a9a3b", "#8d77f0", "#3fb950", "#b98a5a")
_MUTED: Final = "getComputedStyle(document.body).getPropertyValue('--muted').trim()"
_TEXT: Final = "getComputedStyle(document.body).getPropertyValue('--text').trim()"
_CARD: Final = "getComputedStyle(document.body).getPropertyValue('--raised').trim()"
_LINE: Final = "getComputedStyle(document.body).getPropertyValue('--line').trim()"
_FONT_SIZE: Final = "parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.75"
_MAX_MARKS: Final = 40
MAX_POINTS: Final = 200
STATES: Final[Mapping[str, str]] = {
    "ready": GOOD,
    "starting": ACCENT,
    "cordoned": "#8d77f0",
    "draining": WARN,
    "suspect": "#e08b3a",
    "lost": BAD,
    "gone": "#7b8494",
}


def latency(series: Series, sla_ms: float | None) -> dict[str, Any]:
    """p50, p99 and the slowest on a logarithmic axis, the promise as a line, each eviction as a mark."""
    points = thinned(series.points)
    lines = [
        _line("slowest", "#8d97aa", [(_ms(point), point.max_ms) for point in points], thin=True),
        _line("p99", "#c561e0", [(_ms(point), point.p99_ms) for point in points], area=True),
        _line("p50", "#2aa7c9", [(_ms(point), point.p50_ms) for point in points]),
    ]
    marks: list[dict[str, Any]] = [
        {
            "xAxis": event.at_ms,
            "lineStyle": {"color": WARN, "type": "solid", "width": 1.5, "opacity": 0.8},
            "label": {"show": True, "formatter": "▼", "color": WARN, "position": "end", "distance": 0, ":fontSize": _FONT_SIZE},
        }
        for event in series.marks[-_MAX_MARKS:]
    ]
    if sla_ms is not None:
        marks.append(
            {
                "yAxis": sla_ms,
                "lineStyle": {"color": BAD, "type": "dashed", "width": 1.5},
                "label": {
                    "show": True,
                    "position": "insideEndTop",
                    "formatter": f"promise: {sla_ms / 1000:g} s",
                    "color": BAD,
                    ":fontSize": _FONT_SIZE,
                },
            }
        )
    lines[1]["markLine"] = {"silent": True, "symbol": "none", "data": marks}
    slowest = max((point.max_ms or 0 for point in points), default=0)
    top = max(sla_ms or 1000, slowest) * 1.8
    axis = {**_axis("value"), "type": "log", "min": 1, "max": top, ":axisLabel": _labels(_MS, "showMaxLabel: false")}
    return _chart(lines, axis, tooltip=_MS)


def throughput(series: Series) -> dict[str, Any]:
    """Results a second, stacked: good ones, errors, and those that came too late."""
    points = thinned(series.points)
    good = [(_ms(point), max(0, point.results - point.errors - point.misses)) for point in points]
    lines = [
        _line("in time", GOOD, good, area=True, stack="all"),
        _line("error", BAD, [(_ms(point), point.errors) for point in points], area=True, stack="all", strong=True),
        _line("late", WARN, [(_ms(point), point.misses) for point in points], area=True, stack="all", strong=True),
    ]
    return _chart(lines, {**_axis("value"), "min": 0, ":axisLabel": _labels(_COUNT)}, tooltip=_COUNT)


def shares(clusters: Sequence[NodeSeries]) -> dict[str, Any]:
    """Each cluster's share of the weights, stacked to one."""
    lines = [
        _line(
            cluster.key,
            cluster_colour(position),
            [(point.at_ms, None if point.share is None else round(point.share, 4)) for point in cluster.points],
            area=True,
            stack="all",
            strong=True,
        )
        for position, cluster in enumerate(clusters)
    ]
    return _chart(
        lines, {**_axis("value"), "min": 0, "max": 1, "interval": 0.25, ":axisLabel": _labels(_PERCENT)}, tooltip=_PERCENT
    )


def node_lines(series: NodeSeries, what: str) -> dict[str, Any]:
    """A node's weight, share or CPU over time."""
    line = _line(what, ACCENT, [(point.at_ms, getattr(point, what)) for point in series.points], area=True)
    formatter = _COUNT if what == "weight" else _PERCENT
    return _chart([line], {**_axis("value"), "min": 0, ":axisLabel": _labels(formatter)}, tooltip=formatter)


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many points: neighbours are drawn together, with the worst of them as latency and the mean as rate."""
    step = -(-len(points) // most)
    if step <= 1:
        return list(points)
    # Whole groups by the clock, so that a picture that moves on does not flicker.
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(point.second // step, []).append(point)
    return [_together(group) for group in groups.values() if len(group) == step]


def _together(group: Sequence[Point]) -> Point:
    def worst(name: str) -> float | None:
        return max((value for point in group if (value := getattr(point, name)) is not None), default=None)

    def mean(name: str) -> int:
        return round(sum(getattr(point, name) for point in group) / len(group))

    return Point(
        group[0].second, mean("results"), worst("p50_ms"), worst("p99_ms"), worst("max_ms"), mean("misses"), mean("errors")
    )


def _ms(point: Point) -> int:
    return point.second * 1000


def sparkline(values: Sequence[tuple[int, float | None]], colour: str) -> dict[str, Any]:
    """A line without axes."""
    return {
        "animation": False,
        "grid": {"left": 0, "right": 0, "top": 4, "bottom": 2},
        "xAxis": {"type": "time", "show": False},
        "yAxis": {"type": "value", "show": False, "min": 0},
        "series": [_line("", colour, values, area=True)],
    }


def fleet(nodes: Sequence[NodeRow], columns: int) -> dict[str, Any]:
    """One square for each node: its state as colour, its CPU as strength; those of a cluster stand together."""
    data = [
        {
            "value": [position % columns, position // columns, round((node.host_cpu or 0) * 100), node.key, node.state],
            "itemStyle": {"color": f"{STATES.get(node.state, BAD)}{round(255 * _strength(node)):02x}"},
        }
        for position, node in enumerate(nodes)
    ]
    rows = max(1, -(-len(nodes) // columns))
    return {
        "animation": False,
        "grid": {"left": 2, "right": 2, "top": 2, "bottom": 2},
        "tooltip": {
            **_tooltip(),
            "trigger": "item",
            ":formatter": "(p) => `${p.value[3]}\\n${p.value[4]}, CPU ${p.value[2]} %`",
        },
        "xAxis": {"type": "value", "show": False, "min": -0.5, "max": columns - 0.5},
        "yAxis": {"type": "value", "show": False, "min": -0.5, "max": rows - 0.5, "inverse": True},
        "series": [
            {
                "type": "custom",
                ":renderItem": (
                    "(params, api) => { const p = api.coord([api.value(0), api.value(1)]); const s = api.size([1, 1]);"
                    " const g = Math.max(1, Math.min(s[0], s[1]) * 0.12);"
                    " return { type: 'rect', shape: { x: p[0] - s[0] / 2 + g / 2,"
                    " y: p[1] - s[1] / 2 + g / 2, width: Math.max(1, s[0] - g), height: Math.max(1, s[1] - g),"
                    " r: Math.min(s[0], s[1]) * 0.14 }, style: { fill: api.visual('color') } }; }"
                ),
                "data": data,
            }
        ],
    }


def waterfall(phases: Sequence[tuple[str, float, str]]) -> dict[str, Any]:
    """A job's phases as bars, each from where the one before it ended: (name, milliseconds, colour)."""
    begins, total = [], 0.0
    for _, length, _ in phases:
        begins.append(total)
        total += length
    return {
        "animation": False,
        ":grid": f"({{left: {_room(6)}, right: {_room(5)}, top: 8, bottom: {_room(2)}}})",
        "xAxis": {**_axis("value"), "min": 0, "max": max(total, 0.1), ":axisLabel": _labels(_MS)},
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [name for name, _, _ in phases],
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "axisLabel": {":color": _TEXT, ":fontSize": _FONT_SIZE},
        },
        "series": [
            {"type": "bar", "stack": "time", "silent": True, "itemStyle": {"color": "transparent"}, "data": begins},
            {
                "type": "bar",
                "stack": "time",
                "silent": True,
                "barWidth": "52%",
                "data": [{"value": length, "itemStyle": {"color": colour, "borderRadius": 4}} for _, length, colour in phases],
                "label": {
                    "show": True,
                    "position": "right",
                    ":color": _TEXT,
                    ":fontSize": _FONT_SIZE,
                    ":formatter": f"(p) => ({_MS})(p.value)",
                },
            },
        ],
    }


def cluster_colour(position: int) -> str:
    return _CLUSTERS[position % len(_CLUSTERS)]


_MS: Final = "(v) => v >= 1000 ? +(v / 1000).toFixed(2) + ' s' : +(+v).toFixed(v < 10 ? 1 : 0) + ' ms'"
_COUNT: Final = "(v) => v >= 1e6 ? +(v / 1e6).toFixed(1) + ' M' : v >= 1000 ? +(v / 1000).toFixed(1) + ' k' : +(+v).toFixed(1)"
_PERCENT: Final = "(v) => +(v * 100).toFixed(1) + ' %'"


def _chart(lines: Sequence[dict[str, Any]], axis: dict[str, Any], *, tooltip: str) -> dict[str, Any]:
    return {
        "animation": False,
        ":grid": f"({{left: {_room(3.6)}, right: {_room(0.9)}, top: {_room(2)}, bottom: {_room(1.7)}}})",
        "tooltip": {**_tooltip(), "trigger": "axis", ":valueFormatter": f"(v) => v == null ? '–' : ({tooltip})(v)"},
        "legend": {
            "top": 0,
            "right": 6,
            "type": "scroll",
            "icon": "circle",
            ":itemWidth": _FONT_SIZE,
            ":itemHeight": f"{_FONT_SIZE} * 0.7",
            "textStyle": {":color": _MUTED, ":fontSize": _FONT_SIZE},
        },
        "xAxis": {
            **_axis("time"),
            "splitLine": {"show": False},
            "splitNumber": 4,
            "axisLabel": {":color": _MUTED, ":fontSize": _FONT_SIZE, "hideOverlap": True, "formatter": "{HH}:{mm}"},
        },
        "yAxis": axis,
        "series": list(lines),
    }


def _room(rem: float) -> str:
    return f"parseFloat(getComputedStyle(document.documentElement).fontSize) * {rem}"


def _axis(kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "splitNumber": 3,
        "splitLine": {"lineStyle": {":color": _LINE}},
    }


def _labels(formatter: str, more: str = "") -> str:
    return f"({{color: {_MUTED}, fontSize: {_FONT_SIZE}, formatter: {formatter}, {more}}})"


def _tooltip() -> dict[str, Any]:
    # Rich text is drawn on the canvas: nothing in it can become HTML.
    return {
        "renderMode": "richText",
        "confine": True,
        ":backgroundColor": _CARD,
        ":borderColor": _LINE,
        "textStyle": {":color": _TEXT, ":fontSize": _FONT_SIZE},
    }


def _line(
    name: str,
    colour: str,
    values: Sequence[tuple[int, float | None]],
    *,
    area: bool = False,
    stack: str | None = None,
    strong: bool = False,
    thin: bool = False,
) -> dict[str, Any]:
    series: dict[str, Any] = {
        "name": name,
        "type": "line",
        "showSymbol": False,
        "lineStyle": {"width": 0 if strong else 1 if thin else 2, "color": colour},
        "itemStyle": {"color": colour},
        "data": [list(pair) for pair in values],
    }
    if area:
        series["areaStyle"] = {"color": colour, "opacity": 0.75 if strong else 0.13}
    if stack is not None:
        series["stack"] = stack
    return series


def _strength(node: NodeRow) -> float:
    """How full a square's colour is, 0.35 to 1: what is not ready stands out by its colour alone."""
    return 0.35 + 0.65 * min(1.0, node.host_cpu) if node.state == "ready" and node.host_cpu is not None else 1.0
