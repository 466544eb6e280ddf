"""Copy an account's SQLite file, and merge two of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from neuron_atlas.tasks.models.account.tables import open_database

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
INSERT OR IGNORE INTO batches (batch, purpose, account, input_file, provider_id, state, begun_at)
    SELECT batch, purpose, account, input_file, provider_id, state, begun_at FROM other.batches;
UPDATE batches AS m SET
    input_file = coalesce(m.input_file, c.input_file),
    provider_id = coalesce(m.provider_id, c.provider_id),
    state = CASE WHEN c.state = 'done' THEN c.state ELSE m.state END
    FROM other.batches c WHERE c.batch = m.batch;
INSERT OR IGNORE INTO batched (batch, request_hash, call)
    SELECT b.batch, b.request_hash, m.call
    FROM other.batched b JOIN other.calls c ON c.call = b.call JOIN calls m ON {_SAME};
COMMIT;
"""
"""Calls match by request and time, since their numbers differ between files."""


def snapshot(ledger: Path, copy: Path) -> None:
    """Write the current state of a file, which may be in use, to `copy`."""
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def merge(other: Path, ledger: Path) -> None:
    """Add the answers, calls and batches of `other` to a file, which is created if absent.

    Both may have changed since they were the same. Nobody else may use them.
    """
    open_database(other).close()  # Migrates it.
    with closing(open_database(ledger)) as database:
        database.execute("ATTACH DATABASE ? AS other", (str(other),))
        database.executescript(_ADD)
