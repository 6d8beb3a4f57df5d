# SPDX-License-Identifier: Apache-2.0
"""How large the check is: on a GPU, or in a rehearsal on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of all stages.

    Attributes:
      networks: Networks of the steps, a small one and a large one.
      trained_network: Network of the trainings, as the authors released it.
      methods: Methods of the steps that come first.
      other_methods: Methods of the steps that come last but for the papers' rows.
      batch_size: Examples of a timed step.
      checked_batch_size: Examples of the step that is compared with the CPU's.
      steps: Steps of a timed call.
      rounds: Timed calls.
      image_side: Pixels.
      matrix_side: Rows of the matrices whose product gives the measured rate.
      collapse_steps: Steps of the first part of a row that looks for the early collapse.
      row_steps: Steps of each training of the papers' rows; 0 for the papers'.
      call_steps: Steps of a compiled call of these trainings, after which they can stop.
      companions: Numbers of trials side by side.
      companion_seconds: How long they run together.
      companion_steps: Steps of each of their calls.
      torch_methods: Methods that PyTorch runs, too.
      torch_compiler: The backend of `torch.compile`.
      seconds: Factor on the expected seconds of each stage.
    """

    networks: tuple[str, str] = ("resnet29", "wrn28-10")
    trained_network: str = "resnet29-released"
    methods: Sequence[str] = ("ieg", "supervised", "fsr", "l2r")
    other_methods: Sequence[str] = (
        "mixup",
        "forward",
        "ieg_no_lookahead",
        "supervised_strong",
        "probe_only",
        "logit_adjustment",
        "retrain",
    )
    batch_size: int = 100
    checked_batch_size: int = 20
    steps: int = 20
    rounds: int = 3
    image_side: int = 32
    matrix_side: int = 8192
    collapse_steps: int = 2000
    row_steps: int = 0
    call_steps: int = 25
    companions: Sequence[int] = (1, 2, 4, 8)
    companion_seconds: float = 5.0
    companion_steps: int = 25
    torch_methods: Sequence[str] = ("supervised", "ieg", "l2r")
    torch_compiler: str = "inductor"
    seconds: float = 1.0


GPU = Sizes()
REHEARSAL = Sizes(
    networks=("resnet11", "wrn10-1"),
    trained_network="resnet11-released",
    batch_size=10,
    checked_batch_size=10,
    steps=2,
    rounds=1,
    image_side=20,
    matrix_side=64,
    collapse_steps=2,
    row_steps=4,
    call_steps=1,
    companions=(1, 2),
    companion_seconds=0.5,
    companion_steps=1,
    torch_compiler="eager",
    seconds=0.2,
)
