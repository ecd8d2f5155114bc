"""The Python interface, for notebooks and services, on arrays; `calibcli` has its names.

`fit`, `load`, `evaluate` and `compare` do what the commands of these names do; `verdict_of` has the
sentence that `evaluate` prints first. A service, which loads and applies, imports `fitted` alone.
"""
