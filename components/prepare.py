# SPDX-License-Identifier: Apache-2.0
"""First step of a sweep: check the request, write the data, list the cells."""

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
    accelerator: bool,
    data_dir: str,
    results: str,
    plan: Output[Markdown],
) -> list[str]:
    """Checks a sweep's request, writes each distinct overlay once, and lists the cells.

    Args:
      dataset: Data-set spec.
      noise_ratios: Noise ratios in [0, 1]; empty for the data set's default ones.
      methods: Names of methods.
      seeds: Seeds.
      recipe: Recipe family; empty chooses by data set and device.
      network: Network; empty for the recipe's.
      steps: Training steps; 0 for the recipe's.
      settings: Overrides such as "optimizer.learning_rate=0.05".
      accelerator: Whether the cells will have GPUs; decides the default recipe.
      data_dir: Where the base data sets lie.
      results: The results root.
      plan: The cells, to read in the KFP UI; its metadata name the sweep.

    Returns:
      The cells' names: one unnamed list, for kfp.local can loop over no other.
    """
    from pathlib import Path

    from ieg_core import parent, sweep

    parent.die_with_parent()
    request = sweep.SweepRequest(
        dataset=dataset,
        noise_ratios=tuple(noise_ratios),
        methods=tuple(methods),
        # The numbers of a list parameter travel as JSON numbers and arrive as floats.
        seeds=tuple(int(seed) for seed in seeds),
        recipe=recipe,
        network=network,
        steps=steps,
        settings=tuple(settings),
        accelerator=accelerator,
        data_dir=data_dir,
        results=results,
    )
    planned = sweep.plan(request)
    plan.metadata["sweep"] = planned.sweep
    Path(plan.path).write_text("\n".join(f"- `{cell}`" for cell in planned.cells) + "\n")
    return list(planned.cells)
