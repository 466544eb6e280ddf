"""A local cluster that is held until this process is killed, or the one that began it has ended
(held_cluster NODES)."""

from __future__ import annotations

import os
import sys
import time

from neuron_atlas.infra.local_cluster import local_cluster

if __name__ == "__main__":
    parent = os.getppid()
    with local_cluster(int(sys.argv[1])) as server:
        print(server, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
        while os.getppid() == parent:
            time.sleep(1)
