"""The fenced blocks of the documentation, and the commands in them.

The info string of a block says what a test does with it:

    bash, python      run
    bash slow         run by the slow tests only, and checked like those that need something
                      that is not here; python too
    bash serves=PORT  run by the slow tests until something answers on that port
    bash needs=WHAT   not run, for want of WHAT; its commands are checked as far as that goes
    yaml file=PATH    written to PATH, for the blocks that follow; python too
    text, yaml, ...   not a command
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.workflows.runs import ROOT

PAGES = [
    *(path for name in ("README", "CONTRIBUTING") if (path := ROOT / f"{name}.md").exists()),
    *sorted((ROOT / "docs").glob("*.md")),
]

_FENCE = re.compile(r"^ *```(.*)$")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_OPTIONS = {
    "bash": {"", "slow", "serves", "needs"},
    "python": {"", "slow", "needs", "file"},
    "yaml": {"", "file"},
    "text": {""},
    "mermaid": {""},
}


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its opening fence in the page, from 1."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def option(self) -> str:
        return self.info.partition(" ")[2].partition("=")[0]

    @property
    def value(self) -> str:
        return self.info.partition(" ")[2].partition("=")[2]

    @property
    def is_tagged(self) -> bool:
        """Whether the info string is one of those above."""
        takes_value = self.option in ("serves", "needs", "file")
        return self.option in _OPTIONS.get(self.language, ()) and takes_value == bool(self.value)

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line: the variables set for it, its program, and its arguments."""

    variables: dict[str, str]
    program: str
    arguments: list[str]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    blocks: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, lines = (number, fence[1].strip()), []
        elif opened is not None and fence:
            blocks.append(Block(page, *opened, "\n".join(lines) + "\n"))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page.name}:{opened[0]}: the block does not end"
    return blocks


def commands_of(block: Block) -> Iterator[Command]:
    """Read the command lines of a bash block that holds no loops, pipes or quotes over lines."""
    for line in re.split(r"\n|&&", block.text.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        variables = {}
        if words[:1] == ["export"]:
            words = words[1:]
        while words and (found := _ASSIGNMENT.fullmatch(words[0])):
            variables[found[1]] = found[2]
            words = words[1:]
        if words:
            yield Command(variables, words[0], words[1:])


def prose_of(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
