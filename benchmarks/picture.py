"""The results as a bar chart: no-op jobs per second, in SVG."""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 860, 190, 110  # pixels: all, labels, figures
BAR, GAP, TOP, BOTTOM = 22, 12, 58, 34
OURS, YARDSTICK, OTHERS = "#c0392b", "#b9a3a0", "#7f8c8d"
COLOURS = {"ours": OURS, "minimal": YARDSTICK, "bare": YARDSTICK}


def draw(results: dict[str, Any]) -> str:
    """The picture: no-op jobs per second, fastest first, on a linear scale."""
    rates = sorted(
        ((rate(contender), contender["name"], contender["label"]) for contender in results["contenders"]),
        reverse=True,
    )
    height = TOP + len(rates) * (BAR + GAP) + BOTTOM
    most = rates[0][0]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="14" fill="#2c3e50">',
        "<title>No-op jobs per second</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="26" font-size="17" font-weight="600">No-op jobs per second</text>',
        f'<text x="16" y="46" fill="#7f8c8d">{escape(conditions(results))}</text>',
    ]
    for place, (value, name, label) in enumerate(rates):
        lines += bar(TOP + place * (BAR + GAP), value / most, f"{value:,.0f}", label, COLOURS.get(name, OTHERS))
    lines += ["</svg>"]
    return "\n".join(lines) + "\n"


def rate(contender: dict[str, Any]) -> float:
    return float(next(noop["per_second"] for noop in contender["noop"] if noop["procs"] == 2))


def conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return (
        f"2 worker processes × 200 (RQ and bare BRPOP: 2 × 1), {machine['cores']} cores shared with Redis "
        f"{machine['redis']}, Python {machine['python']}"
    )


def bar(top: int, share: float, figure: str, label: str, colour: str) -> list[str]:
    """One line of the chart; `share` is of the longest bar."""
    length = max(1.5, share * (WIDTH - LEFT - RIGHT))
    middle = top + BAR * 0.72
    return [
        f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
        f'<text x="{LEFT + length + 8:.1f}" y="{middle:.1f}">{figure}</text>',
    ]
