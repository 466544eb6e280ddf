"""A SLURM of one node, in namespaces of its own, that ends with the test."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_CONFIG = """\
ClusterName=atlas
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
_START = """\
set -eu
ip link set lo up
# Without an address beside loopback's SLURM does not find out on which to listen.
ip link add inside type veth peer name outside
ip addr add 10.78.0.1/24 dev inside
ip link set inside up
hostname localhost
cd {folder}
munged --foreground --force --key-file={folder}/munge/key --socket={folder}/munge/socket \
  --pid-file={folder}/munge/pid --log-file={folder}/munge/log --seed-file={folder}/munge/seed &
for _ in $(seq 100); do [ -S {folder}/munge/socket ] && break; sleep 0.1; done
slurmctld -D -f {folder}/slurm.conf &
slurmd -D -N localhost -f {folder}/slurm.conf &
touch {folder}/begun
exec sleep infinity
"""


@dataclass(frozen=True)
class Slurm:
    """A SLURM that runs; pid: of a process within its namespaces."""

    folder: Path
    pid: int

    def call(self, *command: str, **environ: str) -> str:
        """Run one of SLURM's commands, such as sbatch; what it wrote."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--"]
        found = subprocess.run(
            [*entered, *command],
            env=self._environment() | environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, f"{shlex.join(command)}: {found.stderr}"
        return found.stdout

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`."""
        words = self.call("scontrol", "show", "job", job).split()
        return next(word for word in words if word.startswith(f"{name}=")).partition("=")[2]

    def end_of(self, job: str, log: Path) -> str:
        """Wait for a job as long as it writes to its log; its exit status and signal: 0:0."""
        going_on = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")
        wait_until(
            lambda: self.field(job, "JobState") not in going_on,
            log=lambda: log.read_text(encoding="utf-8") if log.is_file() else "",
            every_s=0.5,
        )
        return self.field(job, "ExitCode")

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "SLURM_"))
        }
        return kept | {"PATH": _PATH, "SLURM_CONF": f"{self.folder}/slurm.conf"}


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[Slurm]:
    """Start munged, slurmctld and slurmd. In a namespace of processes they see no Ray of others,
    which `ray symmetric-run` would refuse to start beside, and would stop; and all end with it."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    config = _CONFIG.format(folder=folder, cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(config, encoding="utf-8")
    with (folder / "daemons.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--net", "--uts", "bash", "-c", _START.format(folder=shlex.quote(str(folder)))),
            ],
            env=os.environ | {"PATH": _PATH, "SLURM_CONF": f"{folder}/slurm.conf"},
            stdout=log,
            stderr=log,
        )
    try:
        inner = _child_of(process)
        slurm = Slurm(folder, inner)
        wait_until(
            lambda: (folder / "begun").exists() and "idle" in _state(slurm),
            is_alive=lambda: process.poll() is None,
            log=lambda: _logs(folder),
            every_s=0.5,
        )
        yield slurm
    finally:
        process.kill()
        process.wait()


def _child_of(process: subprocess.Popen[bytes]) -> int:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = wait_until(
        lambda: path.read_text(encoding="utf-8").split(), is_alive=lambda: process.poll() is None
    )
    return int(children[0])


def _state(slurm: Slurm) -> str:
    try:
        return slurm.call("sinfo", "--noheader", "--format=%t")
    except AssertionError:
        return ""


def _logs(folder: Path) -> str:
    names = ("daemons.log", "slurmctld.log", "slurmd.log", "munge/log")
    return "\n".join(
        (folder / name).read_text(encoding="utf-8", errors="replace")
        for name in names
        if (folder / name).is_file()
    )
