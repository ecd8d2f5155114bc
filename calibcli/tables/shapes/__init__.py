"""What is no table yet becomes one: one file a shape, and one line in `registry`."""
