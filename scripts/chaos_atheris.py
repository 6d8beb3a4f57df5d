# SPDX-License-Identifier: Apache-2.0
"""Lets atheris search each parser of outside bytes for inputs that it does not survive.

    python -m scripts.chaos_atheris [--seconds 20] [PARSER ...]

atheris follows the branches of the Python code: it changes inputs that reached new ones further.
The parsers, their valid files and what counts as surviving are those of `scripts.chaos_fuzz`. Each
parser is searched in a process of its own, for so many seconds and within 4 GiB. Prints how many
inputs it survived, and the first that it did not; the exit code is 1 if there is one.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ieg_core.host.program import Parser, program

ROOT: Final = Path(__file__).parents[1]
MODULE: Final = "scripts.chaos_atheris"
FOLLOWED: Final = ("ieg_core", "pipelines", "yaml", "pickletools")
"""Packages whose branches are followed."""
LIMITS: Final = ("-rss_limit_mb=4096", "-timeout=20", "-max_len=16384", "-print_final_stats=1")
OTHER_SECONDS: Final = 120


def search(name: str, folder: Path, seconds: int) -> None:
    """Searches one parser; ends this process."""
    import atheris

    with atheris.instrument_imports(include=list(FOLLOWED), enable_loader_override=False):
        from scripts import chaos_fuzz

    scratch, corpus = folder / "scratch", folder / "corpus"
    for made in (scratch, corpus):
        made.mkdir()
    parser = chaos_fuzz.parsers(scratch)[name]
    for number, content in enumerate(parser.seeds):
        (corpus / str(number)).write_bytes(content)

    def parse(content: bytes) -> None:
        if problem := chaos_fuzz.problem_of(parser.parse, parser.errors, content):
            raise AssertionError(f"{problem} ({content[:100].hex()})")

    places = [f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup([name, f"-max_total_time={seconds}", *LIMITS, *places], parse)
    atheris.Fuzz()


def search_apart(name: str, seconds: int) -> bool:
    """Searches a parser in a process of its own; returns whether it survived."""
    with tempfile.TemporaryDirectory(prefix="ieg-fuzz-") as folder:
        answer = subprocess.run(
            [sys.executable, "-m", MODULE, f"--seconds={seconds}", "--in", folder, name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + OTHER_SECONDS,
            check=False,
        )
    tried = re.search(r"number_of_executed_units: (\d+)", answer.stderr)
    if not answer.returncode and tried:
        print(f"atheris {name}: {int(tried[1]):,} inputs survived", flush=True)
        return True
    lines = answer.stderr.splitlines() or ["no output"]
    found = next((line for line in lines if "Error" in line), lines[-1])
    print(f"atheris {name}: {found}", flush=True)
    return False


@program("chaos-atheris")
def main(arguments: Sequence[str] | None = None) -> int:
    """Searches the parsers; returns 1 if one did not survive."""
    options = Parser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="PARSER", help="names of parsers (all)")
    options.add_argument("--seconds", type=int, default=20, help="for each parser")
    options.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris: not installed: stage not run (make setup installs it on Linux x86-64)")
        return 0
    if chosen.folder:
        search(*chosen.names, chosen.folder, chosen.seconds)
    from scripts import chaos_fuzz

    with tempfile.TemporaryDirectory(prefix="ieg-fuzz-") as folder:
        wanted = list(chaos_fuzz.select(chaos_fuzz.parsers(Path(folder)), chosen.names))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        survived = list(pool.map(lambda name: search_apart(name, chosen.seconds), wanted))
    return int(not all(survived))


if __name__ == "__main__":
    sys.exit(main())
