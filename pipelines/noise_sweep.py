# SPDX-License-Identifier: Apache-2.0
"""The noise sweep: methods against noise rates on one data set."""

from typing import Any

from kfp import dsl

from components.check_results import check_results
from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.train import train
from pipelines import parameters
from pipelines.profiles import Profile, place

NAME = "noise-sweep"


def build(profile: Profile) -> Any:
    """Builds the pipeline for a place to run.

    Args:
      profile: The place.

    Returns:
      The pipeline.
    """

    @dsl.pipeline(
        name=NAME,
        # The UI's form of a run shows names, types and defaults, but no descriptions of parameters.
        description="Trains image classifiers on noisy labels and compares methods across noise "
        f"rates. Profile: {profile.name}.\n\n{parameters.as_markdown(profile)}",
    )
    @parameters.declare(profile)
    def noise_sweep(
        data_dir: str,
        results: str,
        results_namespace: str,
        schedule: str,
        tolerance: float,
        accepted: str,
        **planned: Any,
    ) -> None:
        """Trains and compares methods across noise rates.

        1. prepare: check the request, write each distinct label set once, list the trials
        2. for each trial, or pod of several trials, as many at once as the place allows:
           a. train
           b. evaluate
        3. report: one table, one page, from the results root; what was reproduced
        4. check_results: fail if a trial failed, or a reproduction did

        Between the steps travel the trials' names; everything else is in the results root. Only
        pipeline parameters and the loop's item enter the loop (see `pipelines.checks`).
        """
        root = {
            "results": results,
            "results_namespace": results_namespace,
            "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        }
        prepared = prepare(
            data_dir=data_dir,
            **root,
            **planned,
            max_trials=profile.max_trials,
            trials_per_pod=profile.trials_per_pod,
        )
        place(prepared, "small", profile)
        with dsl.ParallelFor(
            prepared.outputs["Output"], name="trials", parallelism=profile.parallelism or None
        ) as trials:
            trained = train(trials=trials, data_dir=data_dir, **root)
            place(trained, "train", profile)
            evaluated = evaluate(trials=trained.output, data_dir=data_dir, **root)
            place(evaluated, "evaluate", profile)
        reported = report(
            plan=prepared.outputs["plan"],
            evaluated=dsl.Collected(evaluated.outputs["Output"]),
            **root,
            schedule=schedule,
            tolerance=tolerance,
            accepted=accepted,
        )
        place(reported, "small", profile)
        checked = check_results(failures=reported.outputs["Output"])
        place(checked, "check_results", profile)

    return noise_sweep
