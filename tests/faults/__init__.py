"""Faults on purpose, between a process under test and its Redis."""
