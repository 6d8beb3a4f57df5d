# SPDX-License-Identifier: Apache-2.0
"""What a report shows, computed once and handed to its page, its tables and the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ieg_core.report.advice import Advice, advise
from ieg_core.report.audits import AuditLine, audit_lines
from ieg_core.report.comparison import Contest, compare
from ieg_core.report.expected import expected_table
from ieg_core.report.headline import Headline, headline
from ieg_core.report.join import Changes
from ieg_core.report.summary import Group, group_trials, results_table
from ieg_core.report.trials import FINISHED, Row, Sweep, Trial

Table = Sequence[Sequence[str]]
"""Lines of equal length, header first."""


@dataclass(frozen=True)
class Report:
    """A sweep, or several joined, with everything that is derived from its trials.

    Attributes:
      sweep: The sweep.
      rows: The rows of results.json.
      groups: The trials that differ only in their seed, in the order of the rows.
      families: The groups of each data set under its noise rates, in the same order.
      contests: Which methods lead on each data set.
      headline: The main finding in words.
      advice: Which method to use, for each family with a result.
      table: The results, one line per group.
      published: Published figures next to the results; empty if none applies.
      audits: The label audits, averaged over seeds.
      missing: The trials without a result.
      changes: The differences between two joined sweeps; otherwise None.
    """

    sweep: Sweep
    rows: Sequence[Row]
    groups: Sequence[Group]
    families: Mapping[str, Sequence[Group]]
    contests: Mapping[str, Contest]
    headline: Headline
    advice: Sequence[Advice]
    table: Table
    published: Table
    audits: Sequence[AuditLine]
    missing: Sequence[Trial]
    changes: Changes | None


def summarize(sweep: Sweep, changes: Changes | None = None) -> Report:
    """Computes everything that a report shows of a sweep.

    Args:
      sweep: The sweep, or several joined.
      changes: The differences between the two sweeps that were joined, if they were two.

    Returns:
      The report. It depends on the arguments only; no file is read.
    """
    groups = group_trials(sweep.trials)
    families: dict[str, list[Group]] = {}
    for group in groups:
        families.setdefault(group.family, []).append(group)
    datasets = dict.fromkeys(group.dataset for group in groups)
    contests = {
        dataset: compare([group for group in groups if group.dataset == dataset])
        for dataset in datasets
    }
    advice = [advise(name, members, contests) for name, members in families.items()]
    return Report(
        sweep=sweep,
        rows=sweep.rows,
        groups=groups,
        families=families,
        contests=contests,
        headline=headline(groups, contests),
        advice=[each for each in advice if each],
        table=results_table(groups),
        published=expected_table(groups),
        audits=audit_lines(groups),
        missing=[trial for trial in sweep.trials if trial.row["status"] != FINISHED],
        changes=changes,
    )
