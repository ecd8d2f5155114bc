"""Whole jobs on open data: fit, measure, apply. No files, no terminal."""
