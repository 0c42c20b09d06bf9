"""An app whose import ends the process without a word."""

from __future__ import annotations

import os

from tests.acceptance.apps.evidence import note

note("begun", "import")
os._exit(7)
