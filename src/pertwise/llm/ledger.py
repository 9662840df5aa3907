"""`Ledger`: every exchange stored once in SQLite, so a run can be resumed, replayed and audited."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise._io import atomic_path, sha256_text
from pertwise.errors import InputError, LedgerError
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
CREATE TABLE IF NOT EXISTS sums (key TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL,
    tokens INTEGER NOT NULL, usd REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS exchanges_by_run
    ON exchanges (run, prompt_tokens, completion_tokens, cost_usd);
CREATE INDEX IF NOT EXISTS failures_by_run
    ON failures (run, prompt_tokens, completion_tokens, cost_usd);
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

    Raises
    ------
    pertwise.errors.LedgerError
        Here and from every method: the file is damaged, is some other program's database, or
        cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, replay: bool = False) -> None:
        self.path = Path(path)
        self.replay = replay
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._checked = False
        if replay and not self.path.is_file():
            raise InputError(f"ledger {self.path} does not exist, so nothing can be replayed")
        try:
            if not replay:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            # Looked at before anything is written: it may be some other program's database.
            fresh = not self.path.exists() or self.path.stat().st_size == 0
        except OSError as error:
            raise LedgerError(f"ledger {self.path}: {error.strerror or error}") from None
        if not fresh:
            self._check_format()
            self.close()
        self._checked = True
        if not replay:
            with self.write() as connection:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,))
        elif fresh:
            raise LedgerError(f"{self.path} is empty, so nothing can be replayed from it")

    # -- connections -----------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        # A connection must not cross a fork: the child opens its own.
        if connection is not None and self._local.pid == os.getpid():
            return connection  # type: ignore[no-any-return]
        try:
            if self.replay or not self._checked:
                connection = _open_read_only(self.path)
            else:
                connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
                connection.execute("PRAGMA journal_mode=WAL")
                # An answer costs more than a disk flush: survive a power cut too.
                connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from None
        connection.isolation_level = None
        self._local.connection, self._local.pid = connection, os.getpid()
        with self._lock:
            self._all.append(connection)
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed when the block ends."""
        connection = self._connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            if self.replay:
                raise  # nobody's input: a replay must not write
            raise self._trouble(error) from None

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """What a query finds, row by row."""
        try:
            yield from self._connect().execute(query, values)
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from None

    def _row(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        return next(self.rows(query, values), None)

    def _trouble(self, error: sqlite3.Error) -> LedgerError:
        text = str(error)
        if "locked" in text:
            return LedgerError(f"ledger {self.path} is held by another program; try again later")
        if any(word in text for word in ("open", "readonly", "full", "disk I/O")):
            return LedgerError(
                f"ledger {self.path} cannot be used ({text}); look at its permissions and at the "
                "space left on the disk"
            )
        if "file is not a database" in text:
            return LedgerError(
                f"{self.path} is not a pertwise ledger, or its first page is damaged; name another "
                "file, or put a copy in its place"
            )
        return self._damaged(text)

    def _damaged(self, what: str) -> LedgerError:
        return LedgerError(
            f"ledger {self.path} is damaged ({what}); put a copy in its place, or move it away and "
            "ask again (`sqlite3 FILE .recover` saves what can still be read)"
        )

    def _check_format(self) -> None:
        tables = {r[0] for r in self.rows("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            return  # a run that was killed before its first commit
        if not {"about", "exchanges", "failures"} <= tables:
            raise LedgerError(
                f"{self.path} is not a pertwise ledger but another program's database (tables "
                f"{', '.join(sorted(tables)[:3])!r}); name another file"
            )
        row = self._row("SELECT value FROM about WHERE name='format'")
        if row is None or row[0] != FORMAT:
            raise LedgerError(
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
        row = self._row("SELECT reply FROM exchanges WHERE key=?", (key,))
        if row is None:
            return None
        return self._reply(key, row[0]).model_copy(update={"from_ledger": True})

    def _reply(self, key: str, text: str) -> ChatReply:
        # Ledgers of earlier versions have no checksums, and readers of them no table to look into.
        stored = None
        if self._row("SELECT 1 FROM sqlite_master WHERE name='sums'") is not None:
            stored = self._row("SELECT sha256 FROM sums WHERE key=?", (key,))
        try:
            if stored is not None and stored[0] != sha256_text(text):
                raise ValueError
            return ChatReply.model_validate_json(text)
        except (ValueError, TypeError, AttributeError):
            raise self._damaged(f"the answer to request {key[:12]} has changed") from None

    def has(self, key: str) -> bool:
        """Whether an answer is stored."""
        return self._row("SELECT 1 FROM exchanges WHERE key=?", (key,)) is not None

    def put(self, request: ChatRequest, reply: ChatReply, run: str = "") -> ChatReply:
        """Store an answer, committed on return; gives back the answer that counts."""
        key = request.key()
        reply = reply.model_copy(update={"request_key": key, "from_ledger": False})
        usage = (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd, reply.seconds)
        text = reply.model_dump_json()
        with self.write() as connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO exchanges VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    key,
                    request.protocol,
                    request.endpoint,
                    request.model,
                    request.model_dump_json(exclude_defaults=True),
                    text,
                    reply.finish_reason,
                    *usage,
                    reply.attempts,
                    run,
                    time.time(),
                ),
            )
            if done.rowcount:
                connection.execute("INSERT INTO sums VALUES (?,?)", (key, sha256_text(text)))
            else:
                message = "another process paid for the same request at the same moment"
                self._insert_failure(
                    connection, request, Failure("paid_twice", message, False), usage, run
                )
        if done.rowcount == 0:
            stored = self.get(key)
            return stored if stored is not None else reply
        return reply

    def put_failure(
        self,
        request: ChatRequest,
        failure: Failure,
        run: str = "",
        paid: ChatReply | None = None,
    ) -> None:
        """Store a failed attempt or, with `final`, a failed call; `paid`: an answer of no use."""
        usage: tuple[int, int, float | None, float] = (0, 0, None, failure.seconds)
        if paid is not None:
            usage = (paid.prompt_tokens, paid.completion_tokens, paid.cost_usd, paid.seconds)
        with self.write() as connection:
            self._insert_failure(connection, request, failure, usage, run)

    def final_failure(self, key: str) -> Failure | None:
        """The last final failure of a request, or None."""
        row = self._row(
            "SELECT kind, message, seconds FROM failures WHERE key=? AND final=1 "
            "ORDER BY id DESC LIMIT 1",
            (key,),
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
        return int(next(self.rows("SELECT count(*) FROM exchanges"))[0])

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
            row = next(self.rows(query, values))
            tokens, usd = tokens + int(row[0]), usd + float(row[1])
        return tokens, usd

    def doubtful(self, run: str | None = None) -> tuple[int, int, float]:
        """(calls, tokens, US dollars) that budgets count beside `spent`.

        Calls under way, calls that were cut off or killed and may have been billed, and what a
        server reported less than it can have used.
        """
        if self._row("SELECT 1 FROM sqlite_master WHERE name='holds'") is None:
            return 0, 0, 0.0
        query = "SELECT count(*), coalesce(sum(tokens), 0), coalesce(sum(usd), 0) FROM holds"
        values: tuple[str, ...] = ()
        if run is not None:
            query, values = query + " WHERE run=?", (run,)
        row = next(self.rows(query, values))
        return int(row[0]), int(row[1]), float(row[2])

    def summary(self) -> pd.DataFrame:
        """One row per (endpoint, model): exchanges, failed attempts, tokens, cost, seconds.

        `cost_usd` sums what is known; `without_price` counts the exchanges it leaves out.
        """
        import pandas as pd

        def table_of(query: str, *columns: str) -> pd.DataFrame:
            return pd.DataFrame(list(self.rows(query)), columns=["endpoint", "model", *columns])

        done = table_of(
            "SELECT endpoint, model, count(*), sum(prompt_tokens), sum(completion_tokens), "
            "sum(cost_usd), sum(cost_usd IS NULL), sum(seconds) "
            "FROM exchanges GROUP BY endpoint, model",
            *("exchanges", "prompt_tokens", "completion_tokens"),
            *("cost_usd", "without_price", "seconds"),
        )
        failed = table_of(
            "SELECT endpoint, model, sum(kind != 'paid_twice'), sum(final), "
            "sum(kind = 'paid_twice') FROM failures GROUP BY endpoint, model",
            *("failed_attempts", "failed_calls", "paid_twice"),
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
        query = "SELECT key, request, reply, run, created FROM exchanges ORDER BY created, key"
        for key, request, reply, run, created in self.rows(query):
            said = self._reply(key, reply)
            try:
                asked = json.loads(request)
            except (ValueError, TypeError):
                raise self._damaged(f"request {key[:12]} has changed") from None
            yield {
                "kind": "exchange",
                "key": key,
                "run": run,
                "created": created,
                "request": asked,
                "reply": said.model_dump(mode="json"),
            }

    def failures(self) -> Iterator[dict[str, Any]]:
        """Every failed attempt or call as a JSON-able dict, oldest first."""
        columns = "key, endpoint, model, kind, message, final, seconds, run, created"
        names = columns.split(", ")
        for row in self.rows(f"SELECT {columns} FROM failures ORDER BY id"):
            record = dict(zip(names, row, strict=True))
            record["error"] = record.pop("kind")
            record["final"] = bool(record["final"])
            yield {"kind": "failure", **record}

    def export_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Write exchanges, then failures, one JSON object a line; returns the number of lines.

        Raises
        ------
        pertwise.errors.InputError
            If `path` is the ledger itself (also by a link) or a file that belongs to it.
        """
        own = [Path(f"{self.path.resolve()}{end}") for end in ("", "-wal", "-shm", "-journal")]
        target = Path(path).resolve()
        if target in own or (target.exists() and target.samefile(self.path)):
            raise InputError(f"{path} is the ledger itself; name another file to export it to")
        n = 0
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
            for record in itertools.chain(self.exchanges(), self.failures()):
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
