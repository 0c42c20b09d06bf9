"""Figures of rq_lite alone, each with its target; `run.py` lists them."""
