"""Every exit is typed: what the machine causes is one line, without a traceback."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SAMPLES, read_table, row_count
from neuron_atlas.tasks.artifacts.damaged import DamagedTableError
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.exit_status import exit_status_of
from tests.workflows.runs import command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: Read-only file system. "),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied. "),
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit of this shell: ulimit -n"),
        (OSError(errno.EFBIG, "File too large", "/x"), "/x: larger than the limit of this shell"),
        (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error. "),
        (sqlite3.OperationalError("database is locked"), "database is locked. "),
        (MemoryError(), "too little memory"),
        (OSError("odd"), "odd. "),
    ],
)
def test_an_error_of_the_machine_is_a_line_and_status_1(capsys, error, said):
    status, line = exit_status_of(error)
    assert status == 1
    assert said in line
    assert line.endswith("Finished work is kept; once the cause is gone, the same command goes on")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"PAR1 cut", b"PAR1" + bytes(2000) + b"PAR1"])
@pytest.mark.parametrize("name", ["samples-0.parquet", "samples-0.arrow"])
def test_a_damaged_table_is_named_with_the_remedy(tmp_path: Path, content: bytes, name: str):
    (tmp_path / name).write_bytes(content)
    for read in (lambda path: read_table(path, SAMPLES), row_count):
        with pytest.raises(DamagedTableError) as caught:
            read(tmp_path / name)
        status, line = exit_status_of(caught.value)
        assert status == 1
        assert line.startswith(f"{tmp_path / name}: damaged (")
        assert "Delete this file and run the same command again" in line


def test_a_table_that_is_not_there_is_not_called_damaged(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "samples-0.parquet", SAMPLES)
    assert isinstance(pa.ArrowInvalid("x"), ValueError)


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_run_goes_on_when_nobody_reads_its_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Closed())
    print_line("capture    10/20 samples")


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("{} --help | head -1; echo ${{PIPESTATUS[0]}}", "0"),
        ("{} captur.x=1 2>&- >&- <&-; echo $?", "2"),
        ("{} captur.x=1 2>&1 | head -0; echo ${{PIPESTATUS[0]}}", "2"),
        ("ulimit -n 64; {} out=$PWD/x; echo $?", "2"),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii {} data.path=/数; echo $?", "2"),
    ],
)
def test_a_terminal_or_shell_that_is_missing_something_is_no_traceback(tmp_path, call, status):
    line = call.format(" ".join(command()))
    ended = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert ended.stdout.splitlines()[-1] == status
    assert "Traceback" not in ended.stderr + ended.stdout
    assert len(ended.stderr.splitlines()) <= 1
