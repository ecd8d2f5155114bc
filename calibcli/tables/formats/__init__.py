"""File formats: one file each, which reads and writes it, and one line in `registry`."""
