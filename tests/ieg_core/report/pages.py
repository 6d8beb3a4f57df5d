# SPDX-License-Identifier: Apache-2.0
"""Reads what a report says: its page as tags, its rows as mappings."""

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ieg_core.report.summary import Group, group_trials
from ieg_core.report.trials import ROW_KEYS, Row, Trial
from ieg_core.report.write import write_report
from ieg_core.store.layout import report_folder

VOID = {"meta", "link", "image", "path", "use", "img", "br"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def row(method: str, rate: float | None, accuracy: float | None, seed: int = 0, **more: Any) -> Row:
    """Makes the row of a trial, failed if it has no accuracy."""
    own = {
        "dataset": f"digits_uniform_{rate:g}" if rate is not None else "digits",
        "method": method,
        "noise_rate": rate,
        "true_flip_rate": None if rate is None else 0.9 * rate,
        "seed": seed,
        "network": "preact8",
        "steps": 600,
        "clean_labels_used": 0 if method == "supervised" else 100,
        "accuracy_ema_last": accuracy,
        "accuracy_ema_best": accuracy,
        "status": "failed" if accuracy is None else "finished",
        "steps_per_second": 20.0,
        "total_seconds": 43.25,
        "trial": f"{method}{rate}{seed}",
    }
    return dict.fromkeys(ROW_KEYS) | own | more


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Groups rows as trials of which nothing else is known."""
    return group_trials(map(Trial, rows))


def write_files(root: Path, sweep: str = "s1") -> Path:
    """Writes a report and returns its folder."""
    write_report(root, sweep)
    return report_folder(root, sweep)


def report(root: Path, sweep: str = "s1") -> str:
    return (write_files(root, sweep) / "report.html").read_text()


def trials_of(folder: Path) -> list[dict]:
    document = json.loads((folder / "results.json").read_text())
    assert document["schema"] == 1
    return document["trials"]
