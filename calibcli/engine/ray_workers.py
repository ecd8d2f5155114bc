"""Workers of a Ray cluster: actors, which it starts anew where one is lost."""

from __future__ import annotations

import pickle
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from calibcli.cached import cached_property
from calibcli.engine.workers import Workers, WorkersError, forget_rows
from calibcli.errors import CalibError, UsageError

_TRIES = 3
_CONNECT_SECONDS = 10
_HOST_AND_PORT = re.compile(r"([^:/]+):([0-9]{1,5})")


@dataclass
class RayWorkers(Workers):
    """``ray:ADDRESS``: one actor for each core of a cluster; ``ray:auto`` finds the one here."""

    name = "ray"
    form = "ray:auto"

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise UsageError("--workers ray:… needs Ray: pip install 'calibcli[ray]'")
        self.threads = self.threads or 1

    @cached_property
    def _actors(self) -> list[Any]:
        import ray

        try:
            # Ray itself tries for minutes.
            if address := _HOST_AND_PORT.fullmatch(self.place):
                socket.create_connection((address[1], int(address[2])), _CONNECT_SECONDS).close()
            ray.init(
                self.place, ignore_reinit_error=True, log_to_driver=False, logging_level="error"
            )
            cores = int(ray.cluster_resources().get("CPU", 0))
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise self._lost(f"no cluster answers ({' '.join(str(error).split())[:200]})") from None
        if not cores:
            raise self._lost("the cluster has no cores")
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_TRIES)(_Actor)
        return [actor.remote() for _ in range(cores)]

    @property
    def slots(self) -> int:
        return len(self._actors)

    def submit(self, slot: int, task: Callable[[], Any]) -> Any:
        return self._actors[slot].work.remote(task)

    def result(self, begun: Any) -> Any:
        import ray

        try:
            return pickle.loads(ray.get(begun))  # noqa: S301 (Ray itself does nothing else)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CalibError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise self._lost(f"a worker was lost ({type(error).__name__})") from None

    def cancel(self, begun: Any) -> None:
        import ray

        ray.cancel(begun)

    def forget(self, job: str) -> None:
        if "_actors" in self.__dict__:
            for actor in self._actors:
                actor.forget.remote(job)

    def _lost(self, what: str) -> WorkersError:
        return WorkersError(f"--workers {self.name}:{self.place}: {what}")


class _Actor:
    """What works on pieces, one at a time."""

    def work(self, task: Callable[[], Any]) -> bytes:
        # Arrays that Ray hands over are read-only, and states are merged in place.
        return pickle.dumps(task(), pickle.HIGHEST_PROTOCOL)

    def forget(self, job: str) -> None:
        forget_rows(job)
