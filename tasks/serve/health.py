"""Whether a server answers, and which models it serves."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

_BROKEN = (OSError, http.client.HTTPException)


def is_healthy(root: str, timeout_s: float) -> bool:
    """Whether GET /health is answered with 200. root: http://HOST:PORT."""
    try:
        with _opener().open(f"{root}/health", timeout=timeout_s) as reply:
            return bool(reply.status == 200)
    except _BROKEN:
        return False


def served_models(base_url: str, key: str, timeout_s: float) -> list[str] | None:
    """The names of the models that a server offers to a key; None where it does not say.

    base_url: http://HOST:PORT/v1. Raises OSError with what is wrong where it cannot be asked or
    refuses the key.
    """
    request = urllib.request.Request(f"{base_url}/models")
    request.add_header("Authorization", f"Bearer {key}")
    try:
        with _opener().open(request, timeout=timeout_s) as reply:
            return [str(model["id"]) for model in json.load(reply)["data"]]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise OSError(f"it refuses the key (HTTP {error.code})") from None
        return None
    except (ValueError, LookupError, TypeError):
        return None
    except http.client.HTTPException as error:
        raise OSError(type(error).__name__) from None


def _opener() -> urllib.request.OpenerDirector:
    # Never by way of a proxy: servers are on this machine, or beside it, and asked so too.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
