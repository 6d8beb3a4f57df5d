# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation's site that no file in docs/ holds, and its navigation.

MkDocs calls the functions `on_…` (mkdocs.yml names this file as a hook). A new page in docs/, a new
room or a new module appears by itself.
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
"""The site's pages that are files of the repository's root."""
FIRST = ("index", "tutorial", "own-images", "notebook", "methods", "settings", "cluster")
LAST = ("contributing", "changelog")
"""Where the reader begins and ends; the other pages stand between them by name."""
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")
FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def rooms(root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> dict[str, list[str]]:
    """Lists the public modules by room.

    Args:
      root: The repository.
      packages: Its packages.

    Returns:
      By room, "ieg_core.methods" for a folder and "ieg_core" for the modules beside them, the
      dotted names of its modules, the package's own first and those of its folders included.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        place = path.relative_to(root)
        module = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        if "._" not in module:
            found.setdefault(".".join(place.parent.parts[:2]), []).append(module)
    return {room: sorted(modules) for room, modules in sorted(found.items())}


def api_page(room: str, modules: Iterable[str]) -> str:
    """Writes a room's page: its modules, each with every public name."""
    return f"# {room}\n\n" + "".join(f"::: {module}\n\n" for module in modules)


def rewrite_links(text: str, page: str, repository: str, root: Path = ROOT) -> str:
    """Makes a page's links right on the site.

    A link out of docs/ leads to the page that stands for that file, else to the file in the
    repository. A link to a file that does not exist stays, and the strict build refuses it.

    Args:
      text: Markdown.
      page: The file that it is from, relative to the repository, "docs/methods.md".
      repository: The repository's address.
      root: The repository's folder.

    Returns:
      The Markdown with its links as the site needs them, what is code left alone.
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
      pages: Their files' names on the site, "decisions/data.md".

    Returns:
      The navigation as MkDocs takes it: pages of the root, then each folder as a section.
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
    """Makes the links of a page of docs/ right on the site."""
    del files
    if page.file.generated_by is not None:
        return markdown
    return rewrite_links(markdown, f"docs/{page.file.src_uri}", str(config.repo_url).rstrip("/"))
