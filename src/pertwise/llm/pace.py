"""How many calls are under way at once, and what a person is told while they last."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from pertwise._progress import tell

#: Seconds after which a call is said to be waited for; then at doubling intervals.
TELL_AFTER_S, TELL_AT_LEAST_S = 10.0, 80.0
#: Calls at once unless told otherwise, and at the start: elsewhere, on this machine. A small
#: server that gets many questions at once answers none of them in time.
MOST, MOST_HERE = 8, 2
START, START_HERE = 2, 1


class Pace:
    """Places for calls of one event loop: few at first, more as answers come.

    Each answer within `quick_s` seconds opens one more place up to `most` (a server that is slow
    with one question is slower with two); each sign of overload (`slower`) halves them.
    """

    def __init__(self, name: str, most: int, quick_s: float, *, here: bool) -> None:
        self._name, self._most, self._quick = name, most, quick_s
        self.limit = min(most, START_HERE if here else START)
        self._gate = asyncio.Semaphore(self.limit)
        # Places to be closed as soon as the calls on them end.
        self._closing = 0
        self._started: dict[int, float] = {}
        self._answered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause = TELL_AFTER_S

    async def __aenter__(self) -> None:
        await self._gate.acquire()
        self._started[id(asyncio.current_task())] = time.monotonic()
        if self._timer is None:
            self._pause = TELL_AFTER_S
            self._later(self._pause)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        now = time.monotonic()
        took = now - self._started.pop(id(asyncio.current_task()), now)
        if not self._started and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if kind is None:
            self._answered += 1
            if took <= self._quick and self.limit < self._most:
                self.limit += 1
                self._open()
        self._open()

    def slower(self) -> None:
        """The server showed that it is asked too much at once."""
        fewer = max(1, self.limit // 2)
        self._closing += self.limit - fewer
        self.limit = fewer

    def _open(self) -> None:
        if self._closing:
            self._closing -= 1
        else:
            self._gate.release()

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tell)

    def _tell(self) -> None:
        waited = time.monotonic() - min(self._started.values(), default=time.monotonic())
        if waited >= TELL_AFTER_S:
            n = len(self._started)
            tell(
                f"waiting for {self._name}: {n} question{'s' if n > 1 else ''} under way, the "
                f"oldest for {waited:.0f} s; {self._answered} answered so far"
            )
            self._pause = min(2 * self._pause, TELL_AT_LEAST_S)
            self._later(self._pause)
        else:
            self._later(max(0.1, TELL_AFTER_S - waited))
