# SPDX-License-Identifier: Apache-2.0
"""`ieg audit FOLDER`: finds image labels that look wrong, from features, without training."""

import argparse
import contextlib
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ieg_core.audit import decisions as decision_files
from ieg_core.audit.cleaning import PRECISION, Cleaned, clean_labels, write_cleaned
from ieg_core.audit.corrections import import_decisions
from ieg_core.audit.decisions import Decisions
from ieg_core.audit.exports import EXPORTS, LABEL_STUDIO, export_audit, local_files
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.inputs import Opened, list_images, open_datasets, open_files
from ieg_core.audit.label_audit import LabelAudit, audit_labels, check_labels
from ieg_core.audit.outputs import OUTPUTS, write_outputs
from ieg_core.auditing import compute_all
from ieg_core.cli import options
from ieg_core.data.image_folder.listing import TRAIN, is_split, list_files
from ieg_core.data.labels.label_file import check_extension
from ieg_core.errors import UserError, printable, require
from ieg_core.experiment import dataset_spec, feature_sources
from ieg_core.experiment.config import ImagesConfig
from ieg_core.features.extract import NETWORK
from ieg_core.features.files import in_order_of, read_features
from ieg_core.features.network import find_networks, largest_side
from ieg_core.host.files import is_inside
from ieg_core.host.machine import usable_cores
from ieg_core.host.progress import ProgressLine, timed
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.sweep.request import make_sweep

TOP = 2000


@dataclass(frozen=True)
class AuditRequest:
    """The request of an `ieg audit` command.

    Attributes:
      places: A folder or a table, or names of data sets.
      are_datasets: Whether `places` are data sets.
      data_dir: Folder of the base data sets.
      labels: The label file of `<base>_labels`.
      out: Output folder; None for audits/<name>.
      features: Names of features (`ieg_core.experiment.feature_sources`).
      mirrored: Whether to average with the features of the mirror images.
      annotators: Label columns of a table; empty to detect them.
      with_test: Whether to audit the test set, too.
      decisions: File of a person's earlier decisions.
      corrections: File of corrections that people made in another tool.
      write_labels: Output file of the cleaned labels.
      precision: Least probability of the suggestion of a changed label, in (0, 1].
      top: Maximum number of images in review.html.
      seed: Seed of the folds and of synthetic label noise.
      exports: (tool, file) pairs, one for each other tool to write the audit for.
      json: Whether to print JSON instead of a summary (`ieg_core.cli.audit.run`).
    """

    places: Sequence[str]
    are_datasets: bool
    data_dir: Path
    labels: str
    out: Path | None
    features: Sequence[str]
    mirrored: bool
    annotators: Sequence[str]
    with_test: bool
    decisions: Path | None
    corrections: Path | None
    write_labels: Path | None
    precision: float
    top: int
    seed: int
    exports: Sequence[tuple[str, Path]] = ()
    json: bool = False


def parse_request(arguments: argparse.Namespace, *, are_datasets: bool) -> AuditRequest:
    """Returns the request of a parsed command line."""
    return AuditRequest(
        places=arguments.places,
        are_datasets=are_datasets,
        data_dir=Path(arguments.data_dir or options.DATA_DIR),
        labels=arguments.labels or "",
        out=arguments.out,
        features=arguments.features or [NETWORK],
        mirrored=arguments.mirrored,
        annotators=[name.strip() for name in (arguments.annotators or "").split(",") if name],
        with_test=arguments.with_test,
        decisions=arguments.decisions,
        corrections=arguments.corrections,
        write_labels=arguments.write_labels,
        precision=PRECISION if arguments.precision is None else arguments.precision,
        top=TOP if arguments.top is None else arguments.top,
        seed=arguments.seed or 0,
        exports=[_export(text) for text in arguments.export],
        json=arguments.json,
    )


def _export(text: str) -> tuple[str, Path]:
    tool, _, file = text.partition("=")
    if tool not in EXPORTS or not file:
        tools = ", ".join(f"{name}=FILE" for name in EXPORTS)
        raise UserError(f"received --export {text}: expected one of {tools}")
    return tool, Path(file)


def audit_images(request: AuditRequest) -> int:
    """Audits images, writes the results and prints a summary.

    Args:
      request: What to audit, and where to write the results.

    Returns:
      The exit status.

    Raises:
      UserError: When the request, the data or the features do not allow an audit; no results have
        been written then.
    """
    set_environment(Runtime(threads=usable_cores()))
    out = request.out or Path("audits") / _name(request)
    _check(request, out)
    sources = feature_sources.parse(request.features)
    networks = find_networks(sources)
    for network in networks:
        network.require_installed()  # fail before the images are read, which takes long
    files = [source.name for source in sources if not source.is_network]
    paths = [Path(name) for name in files]
    external = read_features(paths) if paths else []
    opened = _open(request, largest_side(networks), decodes=bool(networks))
    external = in_order_of(opened.images.names, external, paths)
    for path, rows in zip(paths, external, strict=True):
        if len(rows) != len(opened.images):
            raise UserError(
                f"{path} holds features of {len(rows)} images: expected {len(opened.images)} rows, "
                "one for each image that can be read, in their order"
            )
    decisions = _read_decisions(request, opened.images)
    check_labels(decision_files.apply(opened.images, decisions) if decisions else opened.images)
    names = [network.name for network in networks]
    computed, _ = compute_all(opened, names, mirrored=request.mirrored) if names else ([], [])
    with timed(ProgressLine(f"Judging {len(opened.images):,} labels")):
        audit = _judge(request, opened, decisions, [*computed, *external], [*names, *files])
    cleaned = clean_labels(audit, request.precision) if request.write_labels else None
    known = opened.images
    earlier = decision_files.rows(decisions, known.names, known.class_names) if decisions else ()
    for tool, path in request.exports:
        export_audit(audit, tool, path, **_export_options(request, tool))
    written = write_outputs(out, audit, top=request.top, earlier=earlier)
    for tool, path in request.exports:
        written += _exported(tool, path)
    if request.write_labels and cleaned is not None:
        write_cleaned(request.write_labels, audit, cleaned, opened.data_tag)
    if request.json:
        cleaned_file = [request.write_labels] if request.write_labels else []
        paths = [*written, *cleaned_file]
        options.print_json({"audits": [{"summary": audit.summary.to_value(), "files": paths}]})
        return 0
    for line in audit.headline():
        print(printable(line))
    if decisions is not None:
        print(_describe_decisions(decisions))
    for path in written:
        print(path)
    if request.write_labels and cleaned is not None:
        print(f"{request.write_labels}: {_describe_cleaned(audit, cleaned)}")
        if command := _next_command(request, opened):
            print(f"Train on them: {command}")
    return 0


def _export_options(request: AuditRequest, tool: str) -> dict[str, str]:
    if tool != LABEL_STUDIO or request.are_datasets:
        return {}
    place = Path(os.path.abspath(request.places[0]))
    return {"prefix": local_files(place if place.is_dir() else place.parent)}


def _name(request: AuditRequest) -> str:
    place = request.places[0]
    if request.are_datasets:
        return place
    path = Path(os.path.abspath(place))
    return path.name if path.is_dir() else path.stem


def _check(request: AuditRequest, out: Path) -> None:
    """Refuses an invalid request before anything slow runs."""
    require(request.top >= 0, "--top", request.top, "at least 0")
    require(request.seed >= 0, "--seed", request.seed, "at least 0")
    sources = feature_sources.parse(request.features)
    computes = any(source.is_network for source in sources)
    for option, is_given, is_used, purpose in (
        ("--labels", request.labels, request.are_datasets, "a data set <base>_labels"),
        ("--annotators", request.annotators, not request.are_datasets, "tables"),
        ("--with-test", request.with_test, not request.are_datasets, "folders"),
        ("--mirrored", request.mirrored, computes, "networks"),
    ):
        if is_given and not is_used:
            raise UserError(f"{option} has no effect here: it is for {purpose}; leave it out")
    require(0 < request.precision <= 1, "--precision", request.precision, "above 0 and at most 1")
    if request.write_labels is not None:
        check_extension(request.write_labels)
    if request.decisions and request.corrections:
        raise UserError(
            f"received --decisions {request.decisions} and --corrections {request.corrections}: "
            "expected one of the two; audit with one, then open its review.html and save"
        )
    _refuse_overwriting(request, out, [source.name for source in sources])
    if not request.are_datasets and out.is_file():
        raise UserError(f"{out} is a file: expected a folder for the results (--out, OUT=…)")


def _refuse_overwriting(request: AuditRequest, out: Path, features: Sequence[str]) -> None:
    """Refuses to write into the images' folder, over a file that is read, or to a file twice."""
    place = None if request.are_datasets else Path(request.places[0])
    named = [path for tool, file in request.exports for path in _exported(tool, file)]
    named += [request.write_labels] if request.write_labels else []
    for path in (out, *named):
        if place and place.is_dir() and is_inside(path, place):
            effect = ", and look like one of its classes" if path == out else ""
            raise UserError(
                f"the results would go to {path}, inside {place}{effect}: choose another folder "
                f"({'--out, OUT=…' if path == out else 'its files are only read'})"
            )
    read = [request.labels, request.decisions, request.corrections, *features, place]
    inputs = {os.path.realpath(each) for each in read if each}
    written: set[str] = set()
    for path in (*(out / name for name in OUTPUTS), *named):
        target = os.path.realpath(path)
        if target in inputs:
            raise UserError(f"{path} is read and would be overwritten: choose another name")
        if target in written:
            raise UserError(f"{path} would be written twice: choose another name for one of them")
        written.add(target)


def _exported(tool: str, path: Path) -> list[Path]:
    """Returns the files that an export writes."""
    return [path, *([path.with_suffix(".xml")] if tool == LABEL_STUDIO else [])]


def _open(request: AuditRequest, size: int, *, decodes: bool) -> Opened:
    if request.are_datasets:
        specs = [dataset_spec.parse(name) for name in request.places]
        return open_datasets(specs, request.data_dir, request.labels, request.seed)
    listed = list_images(
        Path(request.places[0]),
        annotators=request.annotators,
        with_test=request.with_test,
        needs_paths=decodes,
    )
    total = len(listed.paths)
    with contextlib.closing(ProgressLine("Reading", "files")) as line:
        return open_files(listed, size, decodes=decodes, progress=lambda done: line(done, total))


def _judge(
    request: AuditRequest,
    opened: Opened,
    decisions: Decisions | None,
    features: Sequence[np.ndarray],
    names: Sequence[str],
) -> LabelAudit:
    """Audits the images that a person's decisions do not drop."""
    images, clean = opened.images, opened.clean
    if decisions is None:
        return audit_labels(images, features, feature_names=names, clean=clean, seed=request.seed)
    dropped = decisions.indices[decisions.labels == MISSING]
    left = np.setdiff1d(np.arange(len(images)), dropped)
    audit = audit_labels(
        decision_files.apply(images, decisions),
        [each[left] if len(each) == len(images) else each for each in features],
        feature_names=names,
        clean=None if clean is None else clean[left],
        seed=request.seed,
    )
    summary = replace(audit.summary, reviews=decisions.changed_per_hundred)
    return replace(audit, summary=summary)


def _read_decisions(request: AuditRequest, images: LabeledImages) -> Decisions | None:
    if request.corrections:
        return import_decisions(images, request.corrections)
    if request.decisions is None:
        return None
    return decision_files.read_decisions(request.decisions, images.names, images.class_names)


def _describe_decisions(decisions: Decisions) -> str:
    if not len(decisions):
        return "No label has been reviewed yet"
    changed = sum(kind in decision_files.CHANGES for kind in decisions.kinds)
    by_hundred = ", ".join(map(str, decisions.changed_per_hundred))
    return (
        f"{len(decisions)} labels were reviewed by a person, who changed {changed} (of each "
        f"hundred: {by_hundred}) and dropped {decisions.kinds.count(decision_files.DROP)}; "
        "confirmed labels are trusted"
    )


def _describe_cleaned(audit: LabelAudit, cleaned: Cleaned) -> str:
    count = int(cleaned.changed.sum())
    labels = int((audit.given != MISSING).sum())
    confirmed = int(cleaned.confirmed.sum())
    more = f", plus {confirmed} corrected by a person" if confirmed else ""
    if not count:
        reason = (
            "no suggestion is certain enough (--precision)"
            if cleaned.shows_errors
            else "the labels do not show that any of them is wrong"
        )
        return f"0 of {labels} labels changed, since {reason}{more}"
    return (
        f"{count} of {labels} labels changed, {cleaned.expected_right:.1%} of them expected to be "
        f"right, each at least {cleaned.least:.1%}{more}"
    )


def _is_data_directory(place: Path) -> bool:
    try:
        list_files(place, needs_test=False)
    except UserError:
        return False
    return True


def _next_command(request: AuditRequest, opened: Opened) -> str:
    """Returns the command that trains on the cleaned labels; "" where there are no images."""
    cleaned = str(request.write_labels)
    place = Path(request.places[0])
    if request.are_datasets:
        dataset = f"{dataset_spec.parse(request.places[0]).base}_{dataset_spec.LABELS}"
        words = {"DATASET": dataset, "DATA_DIR": str(request.data_dir), "LABELS": cleaned}
        return make_sweep(words)
    if _is_data_directory(place):
        dataset = f"folder_{dataset_spec.LABELS}"
        words = {"DATASET": dataset, "DATA_DIR": str(place), "LABELS": cleaned}
        if opened.broken_share > ImagesConfig.max_broken_fraction:
            share = math.ceil(10_000 * opened.broken_share) / 10_000
            words["SET"] = f"images.max_broken_fraction={share:g}"
        return make_sweep(words)
    root = place if place.is_dir() else place.parent
    if opened.images.read is None or is_split(root, TRAIN):
        return ""
    # The labels came from a table that is not part of a data directory; this one can be.
    copied = shlex.join(["cp", cleaned, str(root / TRAIN) + Path(cleaned).suffix.lower()])
    return f"{copied} && {make_sweep({'DATASET': 'folder', 'DATA_DIR': str(root)})}"
