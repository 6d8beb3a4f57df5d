# SPDX-License-Identifier: Apache-2.0
"""The documentation's site: strict, complete, and with links that lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import docs_site

ROOT = Path(__file__).parents[2]
MKDOCS = Path(sys.executable).parent / "mkdocs"


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MKDOCS, "build", "--strict", "--config-file", config, "--site-dir", site],
        cwd=config.parent,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def public_names() -> set[str]:
    """The dotted names of every public function and class of every public module."""
    found = set()
    for modules in docs_site.rooms().values():
        for module in modules:
            path = ROOT / module.replace(".", "/")
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                    found.add(f"{module}.{node.name}")
    return found


@pytest.mark.slow
def test_every_public_function_and_class_is_on_the_site(site):
    anchors = set()
    for page in (site / "api").glob("*.html"):
        anchors |= set(re.findall(r'id="([\w.]+)"', page.read_text(encoding="utf-8")))
    names = public_names()
    assert len(names) > 200
    assert names <= anchors, sorted(names - anchors)


@pytest.mark.slow
def test_every_page_of_docs_and_of_the_root_is_on_the_site(site):
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert {page.with_suffix(".html") for page in pages if page.stem != "README"} <= built
    assert {Path("index.html"), Path("contributing.html"), Path("changelog.html")} <= built
    assert "Training on badly labeled images" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"?(https?://[^\" >]+)", text)
        assert not loaded, (page, loaded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (
            "[x](missing.md) [x](index.md#absent) [x][ieg_core.missing]",
            ["'missing.md'", "'index.md#absent'", "'ieg_core.missing'", "Aborted with 3 warnings"],
        ),
        ("::: ieg_core.missing", ["ieg_core.missing"]),
    ],
    ids=["links", "module"],
)
def test_a_broken_link_or_reference_fails_the_build(tmp_path, text, complaints):
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = re.sub(r"^hooks: .*$", "", config, flags=re.MULTILINE)
    config = config.replace("paths: [.]", f"paths: ['{ROOT}']")
    (tmp_path / "mkdocs.yml").write_text(config)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert [each for each in complaints if each not in said] == [], said


def test_a_new_module_or_room_appears_by_itself(tmp_path):
    for name in ("one/__init__.py", "one/a.py", "one/room/__init__.py", "one/room/deep/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "one" / "room" / "_private.py").touch()
    (tmp_path / "one" / "__main__.py").touch()
    assert docs_site.rooms(tmp_path, ["one"]) == {
        "one": ["one", "one.a"],
        "one.room": ["one.room", "one.room.deep.b"],
    }


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("README.md", "docs/methods.md#ieg", "methods.md#ieg"),
        ("README.md", "docs/images/report.png", "images/report.png"),
        ("README.md", "CONTRIBUTING.md", "contributing.md"),
        ("README.md", "schedules.yaml", "https://r.example/blob/main/schedules.yaml"),
        ("README.md", "https://example.org/a", "https://example.org/a"),
        ("README.md", "missing.py", "missing.py"),
        ("docs/methods.md", "settings.md", "settings.md"),
        ("docs/methods.md", "../README.md", "index.md"),
        ("docs/methods.md", "../pipelines", "https://r.example/tree/main/pipelines"),
        ("docs/methods.md", "#here", "#here"),
        ("docs/decisions/data.md", "../methods.md", "../methods.md"),
        ("docs/decisions/data.md", "../../README.md#use", "../index.md#use"),
    ],
)
def test_a_link_is_right_on_the_site_too(page, link, expected):
    text = docs_site.rewrite_links(f"a [b]({link}) c", page, "https://r.example")
    assert text == f"a [b]({expected}) c"


def test_links_in_code_are_left_alone():
    text = "`[b](schedules.yaml)`\n\n```\n[b](schedules.yaml)\n```\n"
    assert docs_site.rewrite_links(text, "README.md", "https://r.example") == text


def test_the_navigation_starts_with_the_tutorial_and_ends_with_the_api():
    pages = ["zeta.md", "changelog.md", "tutorial.md", "index.md"]
    pages += ["api/a.b.md", "api/a.md", "decisions/a.md", "decisions/index.md"]
    assert docs_site.navigation(pages) == [
        "index.md",
        "tutorial.md",
        "zeta.md",
        "changelog.md",
        {"Decisions": ["decisions/index.md", "decisions/a.md"]},
        {"API": ["api/a.md", "api/a.b.md"]},
    ]
