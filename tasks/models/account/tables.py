"""The account's SQLite file: its tables, snapshots and merging."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_BUSY_TIMEOUT_S = 30.0
_MOST_USD = 10_000.0
"""No call costs as much."""
_LAYOUT = """
CREATE TABLE IF NOT EXISTS answers (
    request_hash TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    answer TEXT NOT NULL,           -- JSON
    settled_at REAL NOT NULL        -- s since 1970, as all times
);
CREATE TABLE IF NOT EXISTS calls (
    call INTEGER PRIMARY KEY,
    request_hash TEXT NOT NULL,
    purpose TEXT NOT NULL,          -- explain, simulate
    model TEXT NOT NULL,
    begun_at REAL NOT NULL,
    ended_at REAL,                  -- null: it may be under way
    outcome TEXT,                   -- null: no result, so it may have been billed
    usd REAL                        -- what it cost; while outcome is null, at most
);
CREATE INDEX IF NOT EXISTS calls_of_requests ON calls (request_hash);
CREATE TABLE IF NOT EXISTS batches (
    batch TEXT PRIMARY KEY,         -- our name for it, sent to the provider as metadata
    purpose TEXT NOT NULL,
    account TEXT,                   -- the provider and the model
    provider_id TEXT,               -- the provider's name for it; null until it is known
    state TEXT NOT NULL,            -- open, done
    begun_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batched (
    batch TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    call INTEGER NOT NULL,
    PRIMARY KEY (batch, request_hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS features (
    server TEXT NOT NULL,           -- the provider and the model
    feature TEXT NOT NULL,          -- an optional feature of a request
    works INTEGER NOT NULL,         -- 1: it works, 0: the server refuses it
    PRIMARY KEY (server, feature)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    purpose TEXT NOT NULL,
    model TEXT NOT NULL,
    factor REAL NOT NULL,           -- calls cost up to so many times the computed worst case
    PRIMARY KEY (purpose, model)
) WITHOUT ROWID;
"""
_SAME = "m.request_hash = c.request_hash AND m.purpose = c.purpose AND m.begun_at = c.begun_at"
_ADD = f"""
BEGIN IMMEDIATE;
INSERT OR IGNORE INTO answers (request_hash, model, answer, settled_at)
    SELECT request_hash, model, answer, settled_at FROM other.answers;
INSERT INTO calls (request_hash, purpose, model, begun_at, ended_at, outcome, usd)
    SELECT request_hash, purpose, model, begun_at, ended_at, outcome, usd FROM other.calls c
    WHERE NOT EXISTS (SELECT 1 FROM calls m WHERE {_SAME});
UPDATE calls AS m SET (ended_at, outcome, usd) =
    (SELECT ended_at, outcome, usd FROM other.calls c WHERE {_SAME} AND c.outcome IS NOT NULL)
    WHERE outcome IS NULL
    AND EXISTS (SELECT 1 FROM other.calls c WHERE {_SAME} AND c.outcome IS NOT NULL);
INSERT OR IGNORE INTO batches (batch, purpose, account, provider_id, state, begun_at)
    SELECT batch, purpose, account, provider_id, state, begun_at FROM other.batches;
UPDATE batches AS m SET
    provider_id = coalesce(m.provider_id, c.provider_id),
    state = CASE WHEN c.state = 'done' THEN c.state ELSE m.state END
    FROM other.batches c WHERE c.batch = m.batch;
INSERT OR IGNORE INTO batched (batch, request_hash, call)
    SELECT b.batch, b.request_hash, m.call
    FROM other.batched b JOIN other.calls c ON c.call = b.call JOIN calls m ON {_SAME};
COMMIT;
"""
"""Calls match by request and time, since their numbers differ between files."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, and create it where needed. Only one thread at a time may use it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(_LAYOUT)
    return database


def totals(database: sqlite3.Connection, purpose: str) -> tuple[float, int]:
    """Return the cost of all calls of one purpose (USD), those without an outcome at their most,
    and the number of the latter.

    Impossible costs do not count: an earlier version believed providers that state them.
    """
    usd, n_open = database.execute(
        "SELECT coalesce(sum(iif(usd BETWEEN 0 AND ?, usd, 0.0)), 0.0),"
        " coalesce(sum(outcome IS NULL), 0) FROM calls WHERE purpose = ?",
        (_MOST_USD, purpose),
    ).fetchone()
    return usd, n_open


def snapshot(ledger: Path, copy: Path) -> None:
    """Write the current state of a file, which may be in use, to `copy`."""
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def merge(other: Path, ledger: Path) -> None:
    """Add the answers, calls and batches of `other` to a file, which is created if absent.

    Both may have changed since one was copied from the other. No other process may use them.
    """
    with closing(open_database(ledger)) as database:
        database.execute("ATTACH DATABASE ? AS other", (str(other),))
        database.executescript(_ADD)
