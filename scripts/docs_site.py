# SPDX-License-Identifier: Apache-2.0
"""Generates the pages of the documentation's site that are not in docs/, and its navigation.

MkDocs calls the functions `on_…` (mkdocs.yml names this file as a hook). New pages in docs/, new
rooms and new modules are included automatically.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("ieg_core", "components", "pipelines")
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files in the repository's root, and the site's pages made from them."""
FIRST = (
    *("index", "tutorial", "review", "own-images", "notebook", "command-line", "methods"),
    *("settings", "cluster"),
)
LAST = ("contributing", "changelog")
"""The first and the last pages; the others are between them, ordered by name."""
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")
FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def rooms(root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> dict[str, list[str]]:
    """Lists the public modules by room.

    Args:
      root: The repository.
      packages: Its packages.

    Returns:
      The dotted names of the modules by room: "ieg_core.methods" for a folder, including its
      sub-folders, and "ieg_core" for the modules that are in no folder. A package comes first.
    """
    modules_by_room: dict[str, list[str]] = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        place = path.relative_to(root)
        module = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        if "._" not in module:
            modules_by_room.setdefault(".".join(place.parent.parts[:2]), []).append(module)
    return {room: sorted(modules) for room, modules in sorted(modules_by_room.items())}


def api_page(room: str, modules: Iterable[str]) -> str:
    """Writes a room's page: its modules, each with every public name."""
    return f"# {room}\n\n" + "".join(f"::: {module}\n\n" for module in modules)


def rewrite_links(text: str, page: str, repository: str, root: Path = ROOT) -> str:
    """Adapts the links of a page to the site.

    A link to a file outside docs/ leads to that file's page, or else to the file in the repository.
    A link to a missing file is kept, and the strict build rejects it.

    Args:
      text: Markdown.
      page: Its file, relative to the repository, "docs/methods.md".
      repository: The repository's address.
      root: The repository's folder.

    Returns:
      The Markdown with adapted links; code is not changed.
    """
    folder = PurePosixPath(page).parent

    def rewrite(link: re.Match[str]) -> str:
        opening, path = link.groups()
        target = normpath((folder / path).as_posix())
        place = FROM_ROOT.get(target) or target.removeprefix("docs/")
        if target in FROM_ROOT or target.startswith("docs/"):
            here = folder.relative_to("docs") if page.startswith("docs/") else PurePosixPath()
            return opening + "../" * len(here.parts) + place
        if (root / target).exists():
            view = "tree" if (root / target).is_dir() else "blob"
            return f"{opening}{repository}/{view}/main/{target}"
        return link.group()

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(rewrite, part) for part in parts[::2]]
    return "".join(parts)


def navigation(pages: Iterable[str]) -> list[Any]:
    """Orders the site's pages.

    Args:
      pages: Their file names on the site, "decisions/data.md".

    Returns:
      The navigation in MkDocs' format: the root's pages, then each folder as a section.
    """
    order = {name: rank for rank, name in enumerate([*FIRST, "", *LAST])}
    by_folder: dict[str, list[str]] = {}
    for page in pages:
        by_folder.setdefault(page.rpartition("/")[0], []).append(page)

    def rank(page: str) -> tuple[int, str]:
        name = page.removesuffix(".md")
        return order.get(name, order[""]), name

    top = sorted(by_folder.pop("", []), key=rank)
    api = sorted(by_folder.pop("api", []), key=lambda page: page.removesuffix(".md"))
    folders = {
        name: sorted(pages, key=lambda page: (not page.endswith("/index.md"), page))
        for name, pages in sorted(by_folder.items())
    }
    return [*top, *({name.capitalize(): folders[name]} for name in folders), {"API": api}]


def _generated(config: MkDocsConfig) -> Iterator[File]:
    for source, page in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = rewrite_links(text, source, str(config.repo_url).rstrip("/"))
        yield File.generated(config, page, content=text)
    for room, modules in rooms().items():
        yield File.generated(config, f"api/{room}.md", content=api_page(room, modules))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and sets the navigation."""
    for file in _generated(config):
        files.append(file)
    config.nav = navigation(file.src_uri for file in files.documentation_pages())
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapts the links of a page in docs/ to the site.

    Args:
      markdown: The page's text.
      page: The page; generated ones stay as they are.
      config: Names the repository's address.
      files: All files of the site; MkDocs passes it.

    Returns:
      The text with links that lead somewhere on the site.
    """
    del files
    if page.file.generated_by is not None:
        return markdown
    return rewrite_links(markdown, f"docs/{page.file.src_uri}", str(config.repo_url).rstrip("/"))
