"""What is shown of an address, and of messages that quote it."""

from __future__ import annotations

import pytest

from neuron_atlas.workflows.tracking.address import hide_password, without_password


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@db.example/mlflow", "postgresql://db.example/mlflow"),
        ("https://me:s@cret@example:5000", "https://example:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////a@b/mlflow.db", "sqlite:////a@b/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_password_in_the_address_is_not_shown(uri, shown):
    assert without_password(uri) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no answer of https://me:secret@db.example/x", "no answer of https://db.example/x"),
        ("login me failed with secret", "login me failed with ***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_a_message_that_quotes_the_address_is_shown_without_its_password(message, shown):
    assert hide_password(message, "https://me:secret@db.example/x") == shown
