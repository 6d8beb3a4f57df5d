# SPDX-License-Identifier: Apache-2.0
"""First step of a sweep: checks the request, writes the label sets, lists the trials."""

from kfp.dsl import Markdown, Output

from components import component


@component
def prepare(
    dataset: str,
    noise_ratios: list[float],
    methods: list[str],
    seeds: list[int],
    recipe: str,
    network: str,
    features: str,
    steps: int,
    settings: list[str],
    labels: str,
    accelerator: bool,
    data_dir: str,
    results: str,
    results_namespace: str,
    run: str,
    run_label: str,
    part: int,
    parts: int,
    max_trials: int,
    trials_per_pod: int,
    plan: Output[Markdown],
) -> list[str]:
    """Checks a sweep's request, writes each distinct label set once, and lists the run's trials.

    The fields of `SweepRequest` are parameters one by one (a test holds them equal): inside a
    dictionary KFP would pass pipeline parameters on as text, and its quotes would break the JSON.

    Args:
      dataset: Data-set spec.
      noise_ratios: Noise rates in [0, 1]; empty for the data set's default.
      methods: Names of methods.
      seeds: Seeds.
      recipe: Recipe family; empty to choose by data set and device.
      network: Network; empty for the recipe's.
      features: Pre-trained network on whose features heads are trained; empty to train networks.
      steps: Training steps; 0 for the recipe's.
      settings: Overrides such as "optimizer.learning_rate=0.05".
      labels: File of the given labels, for a data set that takes one; empty: none.
      accelerator: Whether the trials will have GPUs; decides the default recipe.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      run_label: Name under which the run is recorded; empty: it is not.
      part: The part of the sweep's trials that this run trains, from 1.
      parts: Number of runs that share the sweep.
      max_trials: Maximum number of trials of one run.
      trials_per_pod: Number of trials that one pod trains.
      plan: The trials, for the KFP UI; its metadata contain the sweep's name.

    Returns:
      The trials' names, those of each pod separated by blanks, as one unnamed list: kfp.local
      cannot loop over a named output.
    """
    given = locals()

    from pathlib import Path

    from ieg_core.host import processes
    from ieg_core.store import mirror, runs
    from ieg_core.sweep import plan as sweep
    from ieg_core.sweep.request import SweepRequest
    from ieg_core.tasks import late_report

    processes.die_with_parent()
    place = runs.results_root(results, results_namespace, run)
    with mirror.planning(place) as root:
        request = SweepRequest.from_parameters(given, results=str(root))
        planned = sweep.plan(request)
        trials = runs.part_of(planned.trials, part, parts, max_trials)
        runs.write_run(root, run_label, planned.sweep, trials, part, parts)
    plan.metadata["sweep"] = planned.sweep
    late = late_report.report_unreported(place, besides=planned.sweep)
    lines = [*planned.notes, *late, "", *(f"- `{trial}`" for trial in trials)]
    Path(plan.path).write_text("\n".join(lines).lstrip() + "\n", encoding="utf-8")
    return runs.share_pods(trials, trials_per_pod)
