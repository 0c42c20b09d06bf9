"""Errors of bytes that cannot be read: of which class a library raises them changes with its releases."""

from __future__ import annotations

import msgspec

# What a decoder raises for bytes, or text, that it cannot read. Which of these it is for what, and in which words,
# differs between releases of msgspec: nothing may hang on that.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
