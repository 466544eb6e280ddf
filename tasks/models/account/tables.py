"""The tables of an account's SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

_BUSY_TIMEOUT_S = 30.0
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
    account TEXT,                   -- the provider and the model; null in older files
    input_file TEXT,                -- the provider's ids; null until they are known
    provider_id TEXT,
    state TEXT NOT NULL,            -- open, done
    begun_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batched (
    batch TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    call INTEGER NOT NULL,
    PRIMARY KEY (batch, request_hash)
) WITHOUT ROWID;
"""
_FIRST_LAYOUT = """
INSERT INTO answers (request_hash, model, answer, settled_at)
    SELECT request_hash, model, answer, settled_at FROM requests WHERE answer IS NOT NULL;
INSERT INTO calls (request_hash, purpose, model, begun_at, usd)
    SELECT request_hash, 'explain', model, intended_at, NULL FROM requests WHERE open_intents > 0;
DROP TABLE requests;
"""
"""From the first layout: one row per request, without prices."""


def open_database(path: Path | Literal[":memory:"]) -> sqlite3.Connection:
    """Open the file; create it, or migrate it to this layout, where needed."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(_LAYOUT)
    columns = {name for _, name, *_ in database.execute("PRAGMA table_info(batches)")}
    if "account" not in columns:
        database.execute("ALTER TABLE batches ADD COLUMN account TEXT")
    first = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone()
    if first is not None:
        database.executescript(f"BEGIN IMMEDIATE;{_FIRST_LAYOUT}COMMIT;")
    return database
