"""Faults on purpose: what stands between a process under test and its Redis."""
