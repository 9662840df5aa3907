"""Serving the review page on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable

import uvicorn

from pertwise._io import why_not
from pertwise._process import Interrupted
from pertwise.errors import InputError, PertwiseError
from pertwise.report.review.app import make_app
from pertwise.report.review.session import Review

#: Seconds that an answer under way has at the end.
GRACE = 5


def run(review: Review, port: int, opened: Callable[[str], None]) -> None:
    """See `pertwise.report.review.serve`."""
    token = secrets.token_urlsafe(32)
    with contextlib.closing(socket.socket()) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(("127.0.0.1", port))
        except OverflowError:
            raise InputError(f"there is no port {port}") from None
        except OSError as error:
            raise InputError(f"port {port} cannot be used: {why_not(error)}") from None
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(review, token),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=GRACE,
            )
        )
        ended = threading.Event()

        def work() -> None:
            try:
                server.run(sockets=[place])
            finally:
                ended.set()

        # In a thread, uvicorn leaves the signals to the one place that hears them here. An event,
        # since Python takes a thread for ended when a signal interrupts its `join`.
        threading.Thread(target=work, name="review").start()
        try:
            while not server.started and not ended.wait(0.02):
                pass
            if server.started:
                review.start_reading()
                opened(f"http://127.0.0.1:{place.getsockname()[1]}/{token}/")
            while not ended.wait(0.5):
                pass
        except (KeyboardInterrupt, Interrupted):
            return
        finally:
            server.should_exit = True
            ended.wait()
    raise PertwiseError("the server of the review page ended by itself")
