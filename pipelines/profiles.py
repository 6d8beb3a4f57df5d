# SPDX-License-Identifier: Apache-2.0
"""Where a pipeline runs: the same components, placed by a profile."""

from dataclasses import dataclass

from components import IMAGE


@dataclass(frozen=True)
class Profile:
    """What differs between the places where a pipeline runs.

    Attributes:
      name: The profile's name.
      image: The image of every task; ignored by kfp.local.
      parallelism: Cells at once, a constant of the compiled pipeline; 0 leaves it to the place.
      accelerator: Default of the pipeline's parameter of that name.
      data_dir: Default of the pipeline's parameter of that name.
      results: Default of the pipeline's parameter of that name.
    """

    name: str
    image: str = IMAGE
    parallelism: int = 0
    accelerator: bool = False
    data_dir: str = "data"
    results: str = "runs"


LOCAL = Profile(name="local")
"""This machine. How many cells run at once is decided by its slots (`pipelines.local`)."""
