# SPDX-License-Identifier: Apache-2.0
"""`ieg train --dataset SPEC`: trains one trial and evaluates it."""

import argparse
from pathlib import Path

from ieg_core.cli import options
from ieg_core.cli.output import run_steps
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec
from ieg_core.host import machine
from ieg_core.sweep import plan, slots
from ieg_core.sweep.request import REQUEST_OPTIONS, SweepRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg train`."""
    options.add_inputs(parser)
    parser.add_argument("--dataset", required=True, help="for example cifar10_uniform_0.4")
    parser.add_argument("--method", help="see ieg recipes (l2r; for a head on features, retrain)")
    parser.add_argument("--network", default="", help=REQUEST_OPTIONS["network"].meaning)
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{REQUEST_OPTIONS['features'].meaning}; may be repeated",
    )
    parser.add_argument("--recipe", default="", help=REQUEST_OPTIONS["recipe"].meaning)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random draw (0)")
    parser.add_argument("--steps", type=int, default=0, help="training steps (the recipe's)")
    options.add_settings(parser, "override a setting")
    parser.add_argument("--devices", default="auto", help="auto, cpu, or GPU numbers: 0,1")


def run(arguments: argparse.Namespace) -> int:
    """Trains one trial in a separate process, prints its progress, and evaluates it.

    Raises:
      UserError: When the request is invalid, or names several data sets.
    """
    gpus = machine.find_gpus(arguments.devices)
    request = SweepRequest(
        dataset=str(dataset_spec.parse(arguments.dataset)),
        methods=(arguments.method or ("retrain" if arguments.features else "l2r"),),
        seeds=(arguments.seed,),
        recipe=arguments.recipe,
        network=arguments.network,
        features="+".join(arguments.features),
        steps=arguments.steps,
        settings=tuple(arguments.set),
        accelerator=bool(gpus),
        data_dir=arguments.data_dir,
        results=arguments.out,
        labels=arguments.labels,
    )
    planned = plan.plan(request)
    for note in planned.notes:
        print(f"Note: {note}")
    if len(planned.trials) != 1:
        raise UserError(
            f"{arguments.dataset!r} names {len(planned.trials)} data sets, expected one: append a "
            f"noise rate, such as {arguments.dataset}_0.4, or use make sweep"
        )
    slot = slots.whole_machine(gpus, required=machine.names_gpus(arguments.devices))
    (trial,) = planned.trials
    root, data_dir = Path(arguments.out), Path(arguments.data_dir)
    return run_steps(("train", "evaluate"), trial, root, data_dir, slot)
