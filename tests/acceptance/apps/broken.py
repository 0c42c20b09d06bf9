"""An app that cannot be imported."""

from __future__ import annotations

from tests.acceptance.apps.evidence import note

note("begun", "import")
raise ValueError("no configuration")
