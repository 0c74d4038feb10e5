"""Pages and files: nothing stale, no link into the void, no trace of somebody's machine."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from beilun import documenting

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
ROOMS = ("simulator", "ingest", "edge", "config", "beilun")
SITES = {"doi.org", "github.com", "keepachangelog.com", "semver.org", "www.apache.org"}
"""Where pages and files may point. No registry is among them: those are the reader's own choice."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
URL = re.compile(r"https?://([^/\s)>\"'`:]+)")
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|Users|work|opt|srv|mnt)/")
ROW = re.compile(r"^\| \[[^\]]+\]\((\S+\.py)\) \| (.+) \|$", re.MULTILINE)


def settings_files() -> Iterator[Path]:
    """Files that tools and people configure things with."""
    for pattern in ("*.toml", "*.txt", "*.yml", "*.yaml", "Makefile", "Dockerfile", ".gitignore"):
        yield from ROOT.glob(pattern)
    for folder in ("config", "deploy", ".ci", ".github"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in _TEXT)


_TEXT = {"", ".toml", ".yml", ".yaml", ".json", ".conf", ".ini", ".cfg", ".sh", ".txt", ".md"}


def files() -> list[Path]:
    return sorted({*PAGES, *(path for path in settings_files() if path.is_file())})


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", documenting.pages())
def test_generated_pages_are_fresh(page: str) -> None:
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == documenting.pages()[page], "stale: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_local_links_lead_somewhere(page: Path) -> None:
    targets = (unquote(target) for target in LINK.findall(page.read_text(encoding="utf-8")))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [target for target in local if target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", files(), ids=name)
def test_nothing_of_this_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = MACHINE.findall(text) + [place for place in (f"{ROOT}/",) if place in text]
    assert not found, "names a folder of somebody's machine"
    ours = (".example", "localhost", "127.0.0.1", "influxdb", "host")
    hosts = {host for host in URL.findall(text) if not host.endswith(ours)}
    assert hosts <= SITES, f"points to {hosts - SITES}"
    assert "index-url" not in text


def test_pages_quote_the_docstrings_they_list() -> None:
    rows = [(page, *row) for page in PAGES for row in ROW.findall(page.read_text(encoding="utf-8"))]
    assert {f"{room}/__init__.py" for room in ROOMS} <= {target for _, target, _ in rows}
    for page, target, words in rows:
        source = (page.parent / target).read_text(encoding="utf-8")
        assert words == (ast.get_docstring(ast.parse(source)) or "").splitlines()[0], target


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += [one for group in groups for one in group if not one.startswith("beilun[")]
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    names = {re.split(r"[<>=~! ;]", one)[0] for one in wanted}
    missing = {one for one in names if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text)}
    assert not missing


def test_the_readme_fits_in_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 240
