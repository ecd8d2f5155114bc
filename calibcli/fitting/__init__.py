"""Solvers, and fits of whole maps."""
