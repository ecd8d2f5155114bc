"""Metrics: proper scores and calibration errors, each a fold over blocks of rows."""
