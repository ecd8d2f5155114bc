"""Where a fold or a map runs: threads, a GPU, a cluster."""
