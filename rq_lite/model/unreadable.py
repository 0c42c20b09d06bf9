"""Errors for bytes that cannot be decoded: their classes differ between releases of the library."""

from __future__ import annotations

import msgspec

# What a decoder raises for bytes, or text, that it cannot read. Which of these it raises for what, and with which text,
# differs between releases of msgspec: no code may depend on that.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
