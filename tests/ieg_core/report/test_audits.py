# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from ieg_core.cli.audit import describe
from ieg_core.report.audits import audit_lines
from ieg_core.report.summary import group_trials
from ieg_core.report.trials import ROW_KEYS, Trial, load_trial
from ieg_core.store.records import AuditRecord
from tests.ieg_core.report.pages import write_files
from tests.records import example, put


def trial(method, seed=0, **audit):
    named = {"dataset": "digits_uniform_0.4", "method": method, "trial": f"{method}{seed}"}
    record = example(AuditRecord, **audit) if audit else None
    return Trial(dict.fromkeys(ROW_KEYS) | named, audit=record)


def test_means_over_seeds_and_only_of_trials_with_an_audit():
    known = {"examples": 100, "average_precision": 0.9, "auroc": 0.8, "precision": 1.0}
    trials = [
        trial("supervised", flagged=50, recall=None, **known),
        trial("supervised", 1, flagged=30, recall=0.5, **known),
        trial("probe_only"),
        trial("ieg", flagged=10, examples=40),
    ]
    first, second = audit_lines(group_trials(trials))
    assert (first.label, first.seeds, first.flagged) == ("supervised", 2, "40.0 %")
    assert first.measures == ("0.900", "0.800", "100.0 %", "50.0 %")
    assert (second.label, second.flagged) == ("ieg", "25.0 %")
    assert second.measures == ("-", "-", "-", "-")


def test_a_damaged_summary_costs_the_audit_alone(tmp_path):
    folder = tmp_path / "trials" / "one" / "audit"
    folder.mkdir(parents=True)
    put(folder / "summary.json", flagged=3, examples=4)
    found = load_trial(tmp_path, "one").audit
    assert (found.flagged, found.examples) == (3, 4)
    (folder / "summary.json").write_text("{")
    assert load_trial(tmp_path, "one").audit is None


def test_the_page_shows_the_audits_of_a_sweep_and_nothing_without(results_root):
    root = results_root()
    assert "Label audit" not in (write_files(root, "s1") / "report.html").read_text()
    audited = next(path for path in (root / "trials").iterdir() if "-l2r-" in path.name)
    (audited / "audit").mkdir()
    put(audited / "audit" / "summary.json", flagged=3, examples=8, average_precision=0.875)
    page = (write_files(root, "s1") / "report.html").read_text()
    section = page.partition("<h2>Label audit</h2>")[2].partition("</section>")[0]
    assert section.count('<th scope="row">') == 1
    for text in ("l2r", "37.5\N{NO-BREAK SPACE}%", "0.875"):
        assert text in section


def test_the_command_and_the_page_word_a_trials_audit_alike():
    measures = {"average_precision": 0.9, "auroc": 0.85, "precision": 1.0, "recall": None}
    record = example(
        AuditRecord, dataset="digits_uniform_0.4", method="ieg", seed=2, flagged=30, examples=80,
        wrong=33, **measures,
    )  # fmt: skip
    assert describe(record) == (
        "digits_uniform_0.4, ieg, seed 2: 30 of 80 labels look wrong (37.5 %); 33 are wrong: "
        "average precision 0.900, AUROC 0.850, precision 100.0 %, recall -"
    )
    (line,) = audit_lines(group_trials([replace(trial("ieg"), audit=record)]))
    assert (line.flagged, *line.measures) == ("37.5 %", "0.900", "0.850", "100.0 %", "-")
    unknown = replace(record, average_precision=None)
    assert describe(unknown).endswith("30 of 80 labels look wrong (37.5 %)")
