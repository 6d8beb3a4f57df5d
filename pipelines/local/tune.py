# SPDX-License-Identifier: Apache-2.0
"""`make tune` on this machine: tries equally many settings of every method, writes a table."""

import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ieg_core.errors import EXIT_FAILED, EXIT_OK
from ieg_core.host import machine
from ieg_core.host.files import writable, write_bytes_atomic
from ieg_core.recipes.tuned import SUFFIX, TABLES, to_csv, to_markdown
from ieg_core.store import layout
from ieg_core.sweep import plan, progress, slots, tuning, worker
from ieg_core.sweep.request import SweepRequest
from pipelines.local.sweep import accept_estimate, side_by_side
from pipelines.options import Options


def run_tuning(options: Options, number: int, validation_fraction: float) -> int:
    """Tunes every method of a request on every data set of it.

    Trials that are finished already are not trained again, so an interrupted tuning continues.

    Args:
      options: The request and what it may use of the machine.
      number: Points for each method and data set.
      validation_fraction: Share of the training examples to choose by.

    Returns:
      The exit code: 0, or 1 if a trial failed; its point is not chosen then.

    Raises:
      UserError: When the request is wrong, or would take longer than MAX_HOURS.
    """
    tried = tuning.points(options.request, number, validation_fraction)
    records, notes = plan.record_trials(
        [point.request for point in tried], [point.teacher for point in tried]
    )
    trials = {p: [each.trial for each in of] for p, of in zip(tried, records, strict=True)}
    names = [name for of in trials.values() for name in of]
    root = options.results
    pending = [name for name in names if not layout.is_finished(root, name)]
    for note in notes:
        print(f"Note: {note}")
    print(f"{len(names)} trials of {len(tried)} points, {len(names) - len(pending)} finished")
    if pending:
        shares = slots.plan_slots(
            len(pending),
            options.gpus,
            options.gpus_per_trial,
            machine.usable_cores(),
            machine.usable_memory(),
            required=options.gpus_required,
        )
        _train(options.request, pending, shares, accept_estimate(options, pending, shares))
    rows = tuning.choose(tried, trials, root)
    table = layout.tuning_table(root, plan.sweep_name(options.request, names))
    with writable(root):
        table.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(table, to_csv(rows).encode())
    print(f"\n{to_markdown(rows)}\nTable: {table}")
    recipe = tried[0].recipe
    print(f"To use the choices, copy it into {TABLES} and set RECIPE={recipe}{SUFFIX}", flush=True)
    return EXIT_OK if all(row.agreements for row in rows) else EXIT_FAILED


def _train(
    request: SweepRequest,
    pending: Sequence[str],
    shares: Sequence[slots.Slot],
    estimates: Mapping[str, float],
) -> None:
    """Trains trials side by side, each in a process of its own, and shows their progress."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for trial in pending:
        waiting.put(trial)

    def work(share: slots.Slot) -> None:
        while True:
            try:
                trial = waiting.get_nowait()
            except queue.Empty:
                return
            worker.run_step(
                "train",
                trial,
                Path(request.results),
                Path(request.data_dir),
                slot=share,
                echo=False,
            )

    # Daemons, since Ctrl-C must not wait for them: their processes end with this one.
    threads = [threading.Thread(target=work, args=(share,), daemon=True) for share in shares]
    for thread in threads:
        thread.start()
    progress.watch(
        Path(request.results),
        pending,
        lambda: any(thread.is_alive() for thread in threads),
        expected=side_by_side(estimates.values(), len(shares)),
        estimates=estimates,
    )
