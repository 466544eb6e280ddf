"""A local cluster that is held until this process is killed (held_cluster NODES)."""

from __future__ import annotations

import os
import signal
import sys

from infra.local_cluster import local_cluster

if __name__ == "__main__":
    with local_cluster(int(sys.argv[1])) as server:
        print(server, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
        signal.pause()
