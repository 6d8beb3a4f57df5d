# SPDX-License-Identifier: Apache-2.0
"""`ieg audit FOLDER`: finds image labels that look wrong, from features, without training."""

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ieg_core.audit import decisions as decision_files
from ieg_core.audit.cleaning import Cleaned, clean_labels, write_cleaned
from ieg_core.audit.decisions import Decisions
from ieg_core.audit.exports import EXPORTS, export_audit
from ieg_core.audit.feature_posterior import FEW, MISSING
from ieg_core.audit.inputs import Opened, open_datasets, open_files
from ieg_core.audit.label_audit import LabelAudit, audit_labels
from ieg_core.audit.outputs import write_outputs
from ieg_core.cli.rates import Rates
from ieg_core.data.image_folder.labeled_files import LabeledFiles, list_labeled_files
from ieg_core.data.image_folder.listing import TEST, TRAIN, has_part
from ieg_core.data.labels.label_file import check_extension
from ieg_core.errors import UserError, printable, require
from ieg_core.experiment import dataset_spec, feature_sources
from ieg_core.features.extract import NETWORK, extract_features
from ieg_core.features.files import read_features
from ieg_core.features.network import find_networks, largest_side
from ieg_core.host.machine import usable_cores
from ieg_core.host.runtime import Runtime, set_environment

TOP = 2000
TOPS_SHOWN = (10, 100, 1000, 10_000)
MOST_CLASSES = 6
WEAK_KAPPA, FAIR_KAPPA = 0.2, 0.5


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
      write_labels: Output file of the cleaned labels.
      precision: Expected share of correct labels among the changed ones, in (0, 1].
      top: Maximum number of images in review.html.
      seed: Seed of the folds and of synthetic label noise.
      exports: (tool, file) pairs, one for each other tool to write the audit for.
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
    write_labels: Path | None
    precision: float
    top: int
    seed: int
    exports: Sequence[tuple[str, Path]] = ()


def parse_request(arguments: argparse.Namespace, *, are_datasets: bool) -> AuditRequest:
    """Returns the request of a parsed command line."""
    return AuditRequest(
        places=arguments.places,
        are_datasets=are_datasets,
        data_dir=Path(arguments.data_dir),
        labels=arguments.labels or "",
        out=arguments.out,
        features=arguments.features or [NETWORK],
        mirrored=arguments.mirrored,
        annotators=[name.strip() for name in (arguments.annotators or "").split(",") if name],
        with_test=arguments.with_test,
        decisions=arguments.decisions,
        write_labels=arguments.write_labels,
        precision=arguments.precision,
        top=TOP if arguments.top is None else arguments.top,
        seed=arguments.seed,
        exports=[_export(text) for text in arguments.export],
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
    external = read_features([Path(name) for name in files]) if files else []
    with Rates() as rates:
        opened = _open(request, rates, largest_side(networks), decodes=bool(networks))
        computed = [
            extract_features(
                opened.read_batch,
                len(opened.images),
                network=network.name,
                mirrored=request.mirrored,
                digests=opened.keys,
                progress=rates.step(f"features by {network.name}", "images"),
            )
            for network in networks
            if opened.read_batch
        ]
    names = [*(network.name for network in networks), *files]
    audit, decisions = _judge(request, opened, [*computed, *external], names)
    cleaned = clean_labels(audit, request.precision) if request.write_labels else None
    known = opened.images
    earlier = decision_files.rows(decisions, known.names, known.class_names) if decisions else ()
    for tool, path in request.exports:
        export_audit(audit, tool, path)
    written = write_outputs(out, audit, top=request.top, earlier=earlier)
    for line in describe(audit):
        print(printable(line))
    if decisions is not None:
        print(_describe_decisions(decisions))
    for path in (*written, *(path for _, path in request.exports)):
        print(path)
    if request.write_labels and cleaned is not None:
        write_cleaned(request.write_labels, audit, cleaned, opened.data_tag)
        print(f"{request.write_labels}: {_describe_cleaned(audit, cleaned)}")
        if command := _next_command(request):
            print(f"Train on them: {command}")
    return 0


def describe(audit: LabelAudit) -> list[str]:
    """Returns the summary of an audit and of how reliable it is, one line each."""
    summary, images = audit.summary, audit.images
    counts = sorted(
        zip(summary.class_names, summary.class_counts, strict=True), key=lambda each: -each[1]
    )
    shown = ", ".join(f"{name} {count}" for name, count in counts[:MOST_CLASSES])
    more = ", …" if len(counts) > MOST_CLASSES else ""
    lines = [f"{summary.examples} images of {len(counts)} classes ({shown}{more})"]
    if summary.trusted:
        lines[0] += f", {summary.trusted} of them confirmed"
    if len(images.annotators) > 1:
        reliable = [
            f"{name} {'-' if share is None else f'{share:.0%}'}"
            for name, share in zip(summary.annotators, summary.reliability, strict=True)
        ]
        lines.append(f"Expected share of correct labels: {', '.join(reliable)}")
    lines += [f"Note: {note}" for note in summary.notes]
    grade = (
        "they judge these images poorly, so look at each suggestion"
        if summary.kappa < WEAK_KAPPA
        else "they judge these images fairly"
        if summary.kappa < FAIR_KAPPA
        else "they judge these images well"
    )
    lines.append(
        f"The features predict {summary.agreement:.1%} of the given labels, chance "
        f"{summary.chance:.1%} (kappa {summary.kappa:.2f}): {grade}"
    )
    judged = len(audit.order)
    expected = summary.expected_wrong
    share = f" ({expected / judged:.1%})" if judged else ""
    word = "At least" if summary.examples < FEW else "About"
    lines.append(f"{word} {expected:.0f} of {judged} labels are expected to be wrong{share}")
    sums = np.cumsum(audit.score[audit.order])
    tops = sorted({*(top for top in TOPS_SHOWN if top <= judged), max(1, round(expected))})
    if judged:
        counts_in_tops = ", ".join(f"{sums[top - 1]:.0f} of {top}" for top in tops if top <= judged)
        lines.append(f"Among the most suspicious, expected to be wrong: {counts_in_tops}")
    if summary.average_precision is not None and summary.auroc is not None:
        lines.append(
            f"{summary.wrong} labels are wrong: average precision "
            f"{summary.average_precision:.3f}, AUROC {summary.auroc:.3f}"
        )
    return lines


def _name(request: AuditRequest) -> str:
    place = request.places[0]
    return place if request.are_datasets else Path(os.path.abspath(place)).stem


def _check(request: AuditRequest, out: Path) -> None:
    """Refuses an invalid request before anything slow runs."""
    require(request.top >= 0, "top", request.top, "at least 0")
    require(0 < request.precision <= 1, "precision", request.precision, "above 0 and at most 1")
    if request.write_labels is not None:
        check_extension(request.write_labels)
    if request.are_datasets:
        return
    place = Path(request.places[0])
    if place.is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(place)):
        raise UserError(
            f"the results would go to {out}, inside {place}, and look like one of its classes: "
            "choose another folder (--out, OUT=…)"
        )
    if out.is_file():
        raise UserError(f"{out} is a file: expected a folder for the results (--out, OUT=…)")


def _open(request: AuditRequest, rates: Rates, size: int, *, decodes: bool) -> Opened:
    if request.are_datasets:
        specs = [dataset_spec.parse(name) for name in request.places]
        return open_datasets(specs, request.data_dir, request.labels, request.seed)
    listed: LabeledFiles = list_labeled_files(
        Path(request.places[0]),
        annotators=request.annotators,
        with_test=request.with_test,
        needs_paths=decodes,
    )
    report = rates.step("reading", "files")
    total = len(listed.paths)
    return open_files(
        listed, size, decodes=decodes, progress=lambda done: report(done, total, None)
    )


def _judge(
    request: AuditRequest, opened: Opened, features: Sequence[np.ndarray], names: Sequence[str]
) -> tuple[LabelAudit, Decisions | None]:
    """Audits the images that a person's decisions do not drop; returns the decisions, too."""
    images, clean = opened.images, opened.clean
    if request.decisions is None:
        audit = audit_labels(images, features, feature_names=names, clean=clean, seed=request.seed)
        return audit, None
    decisions = decision_files.read_decisions(request.decisions, images.names, images.class_names)
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
    return replace(audit, summary=summary), decisions


def _describe_decisions(decisions: Decisions) -> str:
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
    more = f", and {confirmed} that a person corrected" if confirmed else ""
    if not count:
        return (
            f"0 of {labels} labels changed, since no suggestion is certain enough (--precision)"
            f"{more}"
        )
    return (
        f"{count} of {labels} labels changed, {cleaned.expected_right:.1%} of them expected to be "
        f"right, each at least {cleaned.least:.1%}{more}"
    )


def _next_command(request: AuditRequest) -> str:
    words = {}
    if request.are_datasets:
        base = dataset_spec.parse(request.places[0]).base
        words = {"DATASET": f"{base}_{dataset_spec.LABELS}", "DATA_DIR": str(request.data_dir)}
    else:
        place = Path(request.places[0])
        if place.is_dir() and has_part(place, TRAIN) and has_part(place, TEST):
            words = {"DATASET": f"folder_{dataset_spec.LABELS}", "DATA_DIR": str(place)}
    if not words:
        return ""
    words["LABELS"] = str(request.write_labels)
    return " ".join(["make sweep", *(f"{key}={shlex.quote(text)}" for key, text in words.items())])
