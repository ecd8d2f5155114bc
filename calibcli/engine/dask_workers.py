"""Workers of a Dask cluster, which schedules the work and does it again where one is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from calibcli.cached import cached_property
from calibcli.engine.workers import Workers, WorkersError, forget_rows
from calibcli.errors import UsageError
from calibcli.version import __version__

_CONNECT_SECONDS = 10


@dataclass
class DaskWorkers(Workers):
    """``dask:ADDRESS``: the workers of a scheduler, ``dask:tcp://HOST:8786`` for example."""

    name = "dask"
    form = "dask:tcp://HOST:8786"

    def __post_init__(self) -> None:
        if find_spec("distributed") is None:
            raise UsageError("--workers dask:… needs Dask: pip install 'calibcli[dask]'")
        self.threads = self.threads or 1

    @cached_property
    def _client(self) -> Any:
        import distributed

        try:
            client = distributed.Client(self.place, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise self._lost(f"no scheduler answers ({_line(error)})") from None
        for worker, version in client.run(_version).items():
            if version != __version__:
                raise self._lost(f"the worker {worker} has calibcli {version}, not {__version__}")
        return client

    @cached_property
    def _slots(self) -> list[str]:
        """The address of the worker of each slot, one for each of its threads."""
        threads: dict[str, int] = self._client.nthreads()
        if not threads:
            raise self._lost("the scheduler has no workers yet")
        most = max(threads.values())
        # Neighbouring slots are of different workers.
        return [worker for i in range(most) for worker, own in threads.items() if i < own]

    @property
    def slots(self) -> int:
        return len(self._slots)

    def submit(self, slot: int, task: Callable[[], Any]) -> Any:
        return self._client.submit(
            task, workers=[self._slots[slot]], allow_other_workers=True, pure=False, retries=2
        )

    def result(self, begun: Any) -> Any:
        from distributed import KilledWorker

        try:
            return begun.result()
        except KilledWorker:
            raise self._lost(
                "workers were killed again and again; is there too little memory?"
            ) from None
        except (OSError, CancelledError) as error:
            raise self._lost(f"the scheduler was lost ({_line(error)})") from None

    def cancel(self, begun: Any) -> None:
        begun.cancel()

    def forget(self, job: str) -> None:
        if "_client" in self.__dict__ and self._client.status == "running":
            self._client.run(forget_rows, job, on_error="ignore")

    def _lost(self, what: str) -> WorkersError:
        return WorkersError(f"--workers {self.name}:{self.place}: {what}")


def _version() -> str:
    return __version__


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
