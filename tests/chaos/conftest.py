"""The same labs as for the acceptance tests."""

from __future__ import annotations

from tests.acceptance.conftest import ctrl_c, environment, lab, lab_at, private, server

__all__ = ["ctrl_c", "environment", "lab", "lab_at", "private", "server"]
