"""What the README and the docs point to exists: files, headings, settings."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from neuron_atlas.workflows.config.composition import CONF, register_resolvers
from tests.docs.blocks import PAGES, prose_of
from tests.workflows.runs import ROOT

GROUPS = ("subject", "data", "describe", "capture", "classify", "explain", "simulate")
_LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
_FILE = re.compile(r"(?:bench|conf|docs|infra|tasks|tests|workflows)/[\w./-]*\w(?:/|\b)")
_HEADS = "|".join((*GROUPS, "analyse", "evidence", "score", "report", "cluster", "tracking"))
_SETTING = re.compile(rf"(?:{_HEADS})(?:\.[a-z0-9_]+)+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = [a or b for a, b in _LINK.findall(_without_code(page))]
    assert [target for target in targets if not leads_somewhere(page, target)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = [file for code in _CODE.findall(prose_of(page)) for file in _FILE.findall(code)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page, all_settings):
    named = [code for code in _CODE.findall(prose_of(page)) if _SETTING.match(code)]
    paths = [_SETTING.match(code)[0] for code in named]
    assert [path for path in paths if not path.endswith(".py") and path not in all_settings] == []


@pytest.fixture(scope="module")
def all_settings() -> set[str]:
    """The paths of all settings, whichever choices of groups they come from."""
    register_resolvers()
    found: set[str] = set()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for group in GROUPS:
            for choice in sorted(path.stem for path in (CONF / group).glob("*.yaml")):
                config = hydra.compose("atlas", overrides=[f"{group}={choice}"])
                found |= set(_paths(config, ""))
    return found


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether a link is one to a file, or to a heading of a page. Other sites are not asked."""
    if re.match(r"[a-z]+:", target):
        return True
    name, _, anchor = unquote(target).partition("#")
    path = (page.parent / name).resolve() if name else page
    if not (path.exists() and path.is_relative_to(ROOT)):
        return False
    return not anchor or anchor in anchors_of(path)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in _HEADING.findall(prose_of(page)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


def _without_code(page: Path) -> str:
    return _CODE.sub("", prose_of(page))


def _paths(config: DictConfig, prefix: str) -> list[str]:
    paths = []
    for key in config:
        path = f"{prefix}{key}"
        paths.append(path)
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not OmegaConf.is_missing(config, key):
            paths += _paths(node, f"{path}.")
    return paths
