"""Text and times as tables and lines show them."""

from __future__ import annotations

LONGEST = 60  # characters of a name that are shown


def plain(text: str, longest: int = LONGEST) -> str:
    """Foreign text made safe for a terminal: one line, without control characters, not too long.

    Each such text is put into a rich Text, in which rich reads no markup.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def span(seconds: float) -> str:
    """Roughly how long: `42 s`, `7 min`, `3 h`, `5 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"
