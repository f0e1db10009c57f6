"""Proof on a real GPU that what the planner says of memory is so."""
