"""The kinds of workers, by the first word of their address."""

from __future__ import annotations

from calibcli.engine.workers import Workers
from calibcli.errors import UsageError
from calibcli.registry import Registry

WORKERS: Registry[type[Workers]] = Registry(
    "kind of workers",
    Workers,
    {
        "processes": "calibcli.engine.process_workers:ProcessWorkers",
        "dask": "calibcli.engine.dask_workers:DaskWorkers",
        "ray": "calibcli.engine.ray_workers:RayWorkers",
    },
    group="calibcli.workers",
)


def open_workers(address: str, memory: int = 0, threads: int = 0) -> Workers:
    """The workers of an address: ``processes:4``, ``dask:tcp://HOST:8786`` or ``ray:auto``.

    Parameters
    ----------
    address : str
    memory : int
        Bytes of rows that a worker may hold; 0 takes half of what is free there.
    threads : int
        Threads of a worker; 0 leaves it to the kind.

    Raises
    ------
    UsageError
        It is no address of workers, or a package for them is not installed.
    WorkersError
        Nobody answers there.
    """
    kind, _, place = address.partition(":")
    if not place:
        forms = ", ".join(each.form for each in WORKERS.values())
        raise UsageError(f"--workers {address!r} is no address of workers; use {forms}")
    return WORKERS.find(kind)(place, memory, threads)
