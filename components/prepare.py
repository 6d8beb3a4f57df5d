# SPDX-License-Identifier: Apache-2.0
"""First step of a sweep: check the request, write the data, list the trials."""

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
    plan: Output[Markdown],
) -> list[str]:
    """Checks a sweep's request, writes each distinct label set once, and lists the run's trials.

    The fields of `SweepRequest` are parameters one by one (a test holds them equal): inside a
    dictionary KFP would pass pipeline parameters on as text, and its quotes would break the JSON.

    Args:
      dataset: Data-set spec.
      noise_ratios: Noise ratios in [0, 1]; empty for the data set's default ones.
      methods: Names of methods.
      seeds: Seeds.
      recipe: Recipe family; empty chooses by data set and device.
      network: Network; empty for the recipe's.
      steps: Training steps; 0 for the recipe's.
      settings: Overrides such as "optimizer.learning_rate=0.05".
      labels: File of the given labels, for a data set that takes one; empty: none.
      accelerator: Whether the trials will have GPUs; decides the default recipe.
      data_dir: Where the base data sets are.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      run_label: Name under which the run is written down; empty: it is not.
      part: Which part of the sweep's trials this run trains, from 1.
      parts: How many runs share the sweep.
      max_trials: Most trials that one run may have.
      plan: The trials, to read in the KFP UI; its metadata name the sweep.

    Returns:
      The trials' names: one unnamed list, for kfp.local can loop over no other.
    """
    given = locals()

    from pathlib import Path

    from ieg_core.host import processes
    from ieg_core.store import mirror, runs
    from ieg_core.sweep import plan as sweep
    from ieg_core.sweep.request import SweepRequest

    processes.die_with_parent()
    with mirror.planning(runs.results_root(results, results_namespace, run)) as root:
        request = SweepRequest.from_parameters(given, results=str(root))
        planned = sweep.plan(request)
        trials = runs.part_of(planned.trials, part, parts, max_trials)
        runs.write_run(root, run_label, planned.sweep, trials, part, parts)
    plan.metadata["sweep"] = planned.sweep
    lines = [*planned.notes, "", *(f"- `{trial}`" for trial in trials)]
    Path(plan.path).write_text("\n".join(lines).lstrip() + "\n")
    return trials
