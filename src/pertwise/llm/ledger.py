"""`Ledger`: every exchange stored once in SQLite, so a run can be resumed, replayed and audited."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise._io import atomic_path
from pertwise.errors import InputError
from pertwise.llm.base import ChatReply, ChatRequest

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "pertwise-ledger-1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS exchanges (
    key TEXT PRIMARY KEY,
    protocol TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    request TEXT NOT NULL, reply TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL,
    seconds REAL NOT NULL, attempts INTEGER NOT NULL, run TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL, message TEXT NOT NULL, final INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL,
    seconds REAL NOT NULL, run TEXT NOT NULL, created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS failures_by_key ON failures (key, final);
"""


@dataclass(frozen=True)
class Failure:
    """A call without a usable answer. `final` = no further attempt was made."""

    kind: str
    message: str
    final: bool
    seconds: float = 0.0


class Ledger:
    """Exchanges keyed by `ChatRequest.key()`.

    Safe for several threads and processes writing to one file (WAL, one connection per thread,
    every write its own committed transaction before the answer is used). The first answer to a
    request is the one that counts; a second payment for it (two processes asking at the same
    moment) is kept among the failures as kind "paid_twice" so that costs stay true.

    Parameters
    ----------
    path
        File to open or create. Network file systems are not supported by SQLite's WAL.
    replay
        True: read only, never create, and chats opened with it never call out.
    """

    def __init__(self, path: str | os.PathLike[str], *, replay: bool = False) -> None:
        self.path = Path(path)
        self.replay = replay
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if replay and not self.path.is_file():
            raise InputError(f"ledger {self.path} does not exist, so nothing can be replayed")
        if not replay:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._check_format()

    # -- connections -----------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        # A connection must not cross a fork: the child opens its own.
        if connection is not None and self._local.pid == os.getpid():
            return connection  # type: ignore[no-any-return]
        if self.replay:
            connection = _open_read_only(self.path)
        else:
            connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            # An answer costs more than a disk flush: survive a power cut too.
            connection.execute("PRAGMA synchronous=FULL")
        connection.isolation_level = None
        self._local.connection, self._local.pid = connection, os.getpid()
        with self._lock:
            self._all.append(connection)
        return connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _check_format(self) -> None:
        try:
            connection = self._connect()
            if not self.replay:
                with self._write():
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    connection.execute(
                        "INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,)
                    )
            row = connection.execute("SELECT value FROM about WHERE name='format'").fetchone()
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path} is not a pertwise ledger: {error}") from None
        if row is None or row[0] != FORMAT:
            raise InputError(
                f"ledger {self.path} has format {row[0] if row else None!r}, this version reads "
                f"{FORMAT!r}"
            )

    def close(self) -> None:
        """Close every connection of this object."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()

    # -- reading and writing ---------------------------------------------------------------

    def get(self, key: str) -> ChatReply | None:
        """The stored answer (marked `from_ledger`), or None."""
        row = self._connect().execute("SELECT reply FROM exchanges WHERE key=?", (key,)).fetchone()
        if row is None:
            return None
        return ChatReply.model_validate_json(row[0]).model_copy(update={"from_ledger": True})

    def has(self, key: str) -> bool:
        """Whether an answer is stored."""
        query = "SELECT 1 FROM exchanges WHERE key=?"
        return self._connect().execute(query, (key,)).fetchone() is not None

    def put(self, request: ChatRequest, reply: ChatReply, run: str = "") -> ChatReply:
        """Store an answer, committed on return; gives back the answer that counts."""
        key = request.key()
        reply = reply.model_copy(update={"request_key": key, "from_ledger": False})
        usage = (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd, reply.seconds)
        with self._write() as connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO exchanges VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    key,
                    request.protocol,
                    request.endpoint,
                    request.model,
                    request.model_dump_json(exclude_defaults=True),
                    reply.model_dump_json(),
                    reply.finish_reason,
                    *usage,
                    reply.attempts,
                    run,
                    time.time(),
                ),
            )
            if done.rowcount == 0:
                message = "another process paid for the same request at the same moment"
                self._insert_failure(
                    connection, request, Failure("paid_twice", message, False), usage, run
                )
        if done.rowcount == 0:
            stored = self.get(key)
            return stored if stored is not None else reply
        return reply

    def put_failure(self, request: ChatRequest, failure: Failure, run: str = "") -> None:
        """Store a failed attempt or, with `final`, a failed call."""
        with self._write() as connection:
            usage = (0, 0, None, failure.seconds)
            self._insert_failure(connection, request, failure, usage, run)

    def final_failure(self, key: str) -> Failure | None:
        """The last final failure of a request, or None."""
        row = (
            self._connect()
            .execute(
                "SELECT kind, message, seconds FROM failures WHERE key=? AND final=1 "
                "ORDER BY id DESC LIMIT 1",
                (key,),
            )
            .fetchone()
        )
        return None if row is None else Failure(row[0], row[1], True, row[2])

    @staticmethod
    def _insert_failure(
        connection: sqlite3.Connection,
        request: ChatRequest,
        failure: Failure,
        usage: tuple[int, int, float | None, float],
        run: str,
    ) -> None:
        connection.execute(
            "INSERT INTO failures (key, endpoint, model, kind, message, final, prompt_tokens, "
            "completion_tokens, cost_usd, seconds, run, created) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                request.key(),
                request.endpoint,
                request.model,
                failure.kind,
                failure.message,
                int(failure.final),
                *usage,
                run,
                time.time(),
            ),
        )

    # -- looking at it ---------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._connect().execute("SELECT count(*) FROM exchanges").fetchone()[0])

    def spent(self, run: str | None = None) -> tuple[int, float]:
        """(tokens, US dollars) paid, of one run label or of all; unknown prices count as 0."""
        tokens, usd = 0, 0.0
        for table in ("exchanges", "failures"):
            query = (
                "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0), "
                f"coalesce(sum(cost_usd), 0) FROM {table}"
            )
            values: tuple[str, ...] = ()
            if run is not None:
                query, values = query + " WHERE run=?", (run,)
            row = self._connect().execute(query, values).fetchone()
            tokens, usd = tokens + int(row[0]), usd + float(row[1])
        return tokens, usd

    def summary(self) -> pd.DataFrame:
        """One row per (endpoint, model): exchanges, failed attempts, tokens, cost, seconds.

        `cost_usd` sums what is known; `without_price` counts the exchanges it leaves out.
        """
        import pandas as pd

        connection = self._connect()
        done = pd.read_sql_query(
            "SELECT endpoint, model, count(*) AS exchanges, sum(prompt_tokens) AS prompt_tokens, "
            "sum(completion_tokens) AS completion_tokens, sum(cost_usd) AS cost_usd, "
            "sum(cost_usd IS NULL) AS without_price, sum(seconds) AS seconds "
            "FROM exchanges GROUP BY endpoint, model",
            connection,
        )
        failed = pd.read_sql_query(
            "SELECT endpoint, model, sum(kind != 'paid_twice') AS failed_attempts, "
            "sum(final) AS failed_calls, sum(kind = 'paid_twice') AS paid_twice "
            "FROM failures GROUP BY endpoint, model",
            connection,
        )
        table = done.merge(failed, on=["endpoint", "model"], how="outer")
        counts = [c for c in table.columns if c not in ("endpoint", "model", "cost_usd", "seconds")]
        table[counts] = table[counts].apply(pd.to_numeric).fillna(0).astype(int)
        table[["cost_usd", "seconds"]] = (
            table[["cost_usd", "seconds"]].apply(pd.to_numeric).fillna(0.0)
        )
        return table.sort_values(["endpoint", "model"], ignore_index=True)

    def exchanges(self) -> Iterator[dict[str, Any]]:
        """Every answered exchange as a JSON-able dict, oldest first."""
        cursor = self._connect().execute(
            "SELECT key, request, reply, run, created FROM exchanges ORDER BY created, key"
        )
        for key, request, reply, run, created in cursor:
            yield {
                "kind": "exchange",
                "key": key,
                "run": run,
                "created": created,
                "request": json.loads(request),
                "reply": json.loads(reply),
            }

    def failures(self) -> Iterator[dict[str, Any]]:
        """Every failed attempt or call as a JSON-able dict, oldest first."""
        columns = "key, endpoint, model, kind, message, final, seconds, run, created"
        cursor = self._connect().execute(f"SELECT {columns} FROM failures ORDER BY id")
        names = columns.split(", ")
        for row in cursor:
            record = dict(zip(names, row, strict=True))
            record["error"] = record.pop("kind")
            record["final"] = bool(record["final"])
            yield {"kind": "failure", **record}

    def export_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Write exchanges, then failures, one JSON object a line; returns the number of lines."""
        n = 0
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
            for record in (*self.exchanges(), *self.failures()):
                out.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")
                n += 1
        return n


def _open_read_only(path: Path) -> sqlite3.Connection:
    base = path.resolve().as_uri()
    connection = sqlite3.connect(f"{base}?mode=ro", uri=True, timeout=60, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # In a folder we cannot write to, WAL bookkeeping is impossible; nobody writes there then.
        connection.close()
        connection = sqlite3.connect(f"{base}?immutable=1", uri=True, check_same_thread=False)
    return connection
