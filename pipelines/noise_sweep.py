# SPDX-License-Identifier: Apache-2.0
"""The noise sweep: methods against noise ratios on one data set."""

from typing import Any

from kfp import dsl

from components.check_results import verdict
from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.train import train
from ieg_core.experiment.methods import DEFAULT_METHODS
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
        description="Trains image classifiers on noisy labels and compares methods across noise "
        f"ratios. Profile: {profile.name}.",
    )
    def noise_sweep(
        dataset: str = profile.dataset,
        noise_ratios: list[float] = [],  # noqa: B006  KFP copies it into the compiled pipeline
        methods: list[str] = list(DEFAULT_METHODS),  # noqa: B006
        seeds: list[int] = [0],  # noqa: B006
        recipe: str = "",
        network: str = "",
        steps: int = 0,
        settings: list[str] = [],  # noqa: B006
        accelerator: bool = profile.accelerator,
        labels: str = "",
        data_dir: str = profile.data_dir,
        results: str = profile.results,
        results_namespace: str = "",
        run_label: str = "",
        part: int = 1,
        parts: int = 1,
        schedule: str = "",
        tolerance: float = -1.0,
        accepted: str = "",
    ) -> None:
        """Trains and compares methods across noise ratios.

        1. prepare: check the request, write each distinct label set once, list the trials
        2. for each trial, as many at once as the place allows:
           a. train
           b. evaluate
        3. report: one table, one page, from the results root; what was reproduced
        4. verdict: fail if a trial failed, or a reproduction did

        Between the steps travel the trials' names; everything else lies in the results root. Only
        pipeline parameters and the loop's item enter the loop (see `pipelines.checks`).

        Args:
          dataset: Data set and kind of noise, such as cifar10_asymmetric or digits_uniform_0.4.
          noise_ratios: Shares of labels made noisy, in [0, 1]. Empty: the data set's usual ones.
          methods: Methods to compare, such as supervised, mixup, probe_only, l2r, fsr, ieg.
          seeds: Whole numbers; each repeats every training with other noise and other weights.
          recipe: Recipe family. Empty: the one for the data set and the device.
          network: Another network than the recipe's. Empty: the recipe's.
          steps: Another number of training steps than the recipe's. 0: the recipe's.
          settings: Overrides for every training, such as optimizer.learning_rate=0.05.
          accelerator: Whether trainings have GPUs; decides the recipe where none is named.
          labels: File of the given labels, for a data set such as photos_labels. Empty: none.
          data_dir: Folder of the base data sets, as the pods see it.
          results: Results root, a folder as the pods see it, or gs://bucket/prefix.
          results_namespace: Part of the results root for this run alone; {run} stands for the
            run's id. Empty: the whole root, where finished trainings are not repeated.
          run_label: Name under which the run is written down in the results root. Empty: none.
          part: Which part of the trainings this run does, from 1 to parts.
          parts: How many runs share the trainings; one does at most 100.
          schedule: Name of the schedule that starts this run. Empty: none.
          tolerance: Points of accuracy, in per cent, by which results may miss the published ones
            or differ from the accepted run's. Negative: they are not compared.
          accepted: A results.json to compare with. Empty: accepted/<schedule>.json in the results
            root, if there is one.
        """
        root = {
            "results": results,
            "results_namespace": results_namespace,
            "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        }
        prepared = prepare(
            dataset=dataset,
            noise_ratios=noise_ratios,
            methods=methods,
            seeds=seeds,
            recipe=recipe,
            network=network,
            steps=steps,
            settings=settings,
            accelerator=accelerator,
            labels=labels,
            data_dir=data_dir,
            **root,
            run_label=run_label,
            part=part,
            parts=parts,
            max_trials=profile.max_trials,
        )
        place(prepared, "small", profile)
        trials = prepared.outputs["Output"]
        with dsl.ParallelFor(
            trials, name="trials", parallelism=profile.parallelism or None
        ) as trial:
            trained = train(trial=trial, data_dir=data_dir, **root)
            place(trained, "train", profile)
            evaluated = evaluate(trial=trained.output, data_dir=data_dir, **root)
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
        judged = verdict(failures=reported.outputs["Output"])
        place(judged, "verdict", profile)

    return noise_sweep
