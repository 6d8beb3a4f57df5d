# SPDX-License-Identifier: Apache-2.0
"""The noise sweep: methods against noise ratios on one data set."""

from typing import Any

from kfp import dsl

from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.train import train
from components.verdict import verdict
from ieg_core.settings import DEFAULT_METHODS
from pipelines.profiles import Profile


def build(profile: Profile) -> Any:
    """Builds the pipeline for a place to run.

    Args:
      profile: The place.

    Returns:
      The pipeline.
    """

    @dsl.pipeline(name="noise-sweep", description="Methods compared across noise ratios.")
    def noise_sweep(
        dataset: str = "digits_uniform",
        noise_ratios: list[float] = [],  # noqa: B006  KFP copies it into the compiled pipeline
        methods: list[str] = list(DEFAULT_METHODS),  # noqa: B006
        seeds: list[int] = [0],  # noqa: B006
        recipe: str = "",
        network: str = "",
        steps: int = 0,
        settings: list[str] = [],  # noqa: B006
        accelerator: bool = profile.accelerator,
        data_dir: str = profile.data_dir,
        results: str = profile.results,
    ) -> None:
        """Trains and compares methods across noise ratios.

        1. prepare: check the request, write each distinct overlay once, list the cells
        2. for each cell, as many at once as the place allows:
           a. train
           b. evaluate
        3. report: one table, one page, from the results root
        4. verdict: fail if a cell failed

        Between the steps travel the cells' names; everything else lies in the results root. Only
        pipeline parameters and the loop's item enter the loop (see `pipelines.checks`).
        """
        prepared = _placed(
            prepare(
                dataset=dataset,
                noise_ratios=noise_ratios,
                methods=methods,
                seeds=seeds,
                recipe=recipe,
                network=network,
                steps=steps,
                settings=settings,
                accelerator=accelerator,
                data_dir=data_dir,
                results=results,
            ),
            profile,
        )
        cells = prepared.outputs["Output"]
        with dsl.ParallelFor(cells, name="cells", parallelism=profile.parallelism or None) as cell:
            trained = _placed(train(cell=cell, data_dir=data_dir, results=results), profile)
            evaluated = _placed(
                evaluate(cell=trained.output, data_dir=data_dir, results=results), profile
            )
        reported = _placed(
            report(
                plan=prepared.outputs["plan"],
                evaluated=dsl.Collected(evaluated.outputs["Output"]),
                results=results,
            ),
            profile,
        )
        _placed(verdict(failures=reported.outputs["Output"]), profile)

    return noise_sweep


def _placed(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    # The results root remembers. KFP's cache does not see our code, and to switch it off at
    # submission does not reach the tasks of a loop.
    task.set_caching_options(False)
    task.set_container_image(profile.image)
    return task
