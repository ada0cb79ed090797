"""Declared sets of runs, times seeds, and what they show."""
