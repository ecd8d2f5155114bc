"""A headless browser for tests, spoken to over a pipe in its own protocol (CDP).

Any Chromium will do, and nothing needs to be installed for Python.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
PATIENCE = 60.0
"""Seconds to wait for an answer."""


def find_browser() -> str | None:
    """The path of a Chromium: what ``CALIB_BROWSER`` says, or the first on the path."""
    wanted = os.environ.get("CALIB_BROWSER")
    return wanted or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab of the browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._number = commands, answers, 0
        self._pending = b""
        self._session: str | None = None
        self.console: list[str] = []
        """What went wrong on the page: errors, warnings, uncaught exceptions."""
        self.requests: list[str] = []
        """What the page asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select([self._answers], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has gone"
            self._pending += piece
        message, _, self._pending = self._pending.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, details = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(details["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.console.append(json.dumps(details["args"])[:500])
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.console.append(details["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"][:200])

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show a file, in a window of this size and in these colours."""
        self.size(width, height)
        self.colours(dark=dark)
        self.call("Page.navigate", url=path.resolve().as_uri())
        ready = "document.readyState === 'complete' && location.href !== 'about:blank'"
        for _ in range(600):
            if self.value(ready):
                break
            self.value("new Promise(done => setTimeout(done, 50))")
        self.settle()

    def size(self, width: int, height: int) -> None:
        """Make the page as large as this."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def colours(self, *, dark: bool) -> None:
        """Prefer light or dark colours."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def paper(self, *, dark: bool) -> None:
        """Lay the page out as for a printer, of somebody whose screen has these colours."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print", features=[scheme])

    def settle(self) -> None:
        """Wait until everything is drawn."""
        self.value("new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")

    def value(self, expression: str) -> Any:
        """The value of JavaScript on the page; of a promise, what it promises."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def hover(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def screenshot(self, *, whole: bool = True) -> bytes:
        """The page as PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])


@contextmanager
def browse(browser: str, profile: Path) -> Iterator[Page]:
    """A page of a browser that has its files in a folder, and ends afterwards."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()

    def place() -> None:
        # The protocol wants descriptors 3 and 4; what is duplicated stays open in the browser.
        first, second = os.dup(to_browser), os.dup(from_browser)
        os.dup2(first, 3)
        os.dup2(second, 4)

    flags = [
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    with subprocess.Popen(
        [browser, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place,  # noqa: PLW1509 (no threads are running that could hold a lock)
        close_fds=False,
    ) as process:
        os.close(to_browser)
        os.close(from_browser)
        try:
            page = Page(commands, answers)
            yield page
            with suppress(AssertionError, OSError):
                page._session = None
                page.call("Browser.close")
        finally:
            os.close(commands)
            os.close(answers)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
