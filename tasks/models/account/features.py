"""Store what is known of the servers of models."""

from __future__ import annotations

import sqlite3

from neuron_atlas.tasks.models.account.messages import FeatureReport
from neuron_atlas.tasks.models.negotiation import ServerFeatures


def update_features(database: sqlite3.Connection, report: FeatureReport) -> ServerFeatures:
    """Store what was found out about a server; return all that is known of it.

    A feature that works for one request works, though the server may refuse another request.
    """
    for feature in report.found.refused:
        database.execute(
            "INSERT OR IGNORE INTO features (server, feature, works) VALUES (?, ?, 0)",
            (report.server, feature),
        )
    for feature in report.found.works:
        database.execute(
            "INSERT OR REPLACE INTO features (server, feature, works) VALUES (?, ?, 1)",
            (report.server, feature),
        )
    rows = database.execute(
        "SELECT feature, works FROM features WHERE server = ?", (report.server,)
    ).fetchall()
    return ServerFeatures(
        frozenset(feature for feature, works in rows if works),
        frozenset(feature for feature, works in rows if not works),
    )
