# SPDX-License-Identifier: Apache-2.0
"""Builds the image with docker, podman or buildah, whichever works; needs only Python and git.

The tag is the git revision, so that a run's record, KFP's cache key and the image identify the same
source; the image without CUDA adds "-cpu". Uncommitted changes are refused, or marked "-dirty" with
DIRTY=1.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ieg_core.errors import FailedError, UserError
from ieg_core.host.program import Parser, program
from pipelines import variables
from pipelines.revision import revision

ROOT = Path(__file__).parents[1]
DOCKERFILE = "docker/Dockerfile"
TARGETS = ("cpu", "gpu")
ENGINES = ("docker", "podman", "buildah")
RUNNERS = {"docker": "docker", "podman": "podman", "buildah": "podman"}
"""What runs the images of each engine: buildah only builds, but shares its images with podman."""


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes:
      engine: The engine that built it.
      name: Its name with the tag.
      revision: The git revision in it, with "-dirty" if there were uncommitted changes.
      target: "cpu" or "gpu".
    """

    engine: str
    name: str
    revision: str
    target: str


def find_engine(requested: str) -> str:
    """Returns the requested engine, or the first one that works.

    Raises:
      UserError: When none works.
    """
    if requested and requested not in ENGINES:
        raise UserError(f"ENGINE={requested}: expected one of {', '.join(ENGINES)}")
    for engine in (requested,) if requested else ENGINES:
        if shutil.which(engine) and _succeeds(engine, "info"):
            return engine
    wanted = requested or "docker, podman or buildah"
    raise UserError(
        f"found no working engine: expected {wanted}, installed, started and accessible to "
        "you (`docker info`, `podman info` or `buildah info` must succeed)"
    )


def find_runner(engine: str) -> str:
    """Returns the program that runs containers of the engine's images.

    Raises:
      UserError: When it does not work.
    """
    runner = RUNNERS[engine]
    if shutil.which(runner) and _succeeds(runner, "info"):
        return runner
    raise UserError(f"{engine} builds images and {runner} runs them: install {runner}")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def check_name(name: str) -> str:
    """Returns an image's name if it is valid and has no tag; else raises a UserError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*[a-z0-9]", name) or ":" in name.rpartition("/")[2]:
        raise UserError(
            f"IMAGE={name!r}: expected a name without a tag, such as "
            "registry.example/team/ieg-python; the tag is the git revision"
        )
    if "python" not in name.rpartition("/")[2]:
        raise UserError(f"IMAGE={name!r}: KFP warns unless the name contains 'python': rename it")
    return name


def project_version() -> str:
    """Returns the project's version."""
    match = re.search(
        r'^__version__ = "(.*)"', (ROOT / "ieg_core/__init__.py").read_text(encoding="utf-8"), re.M
    )
    if match is None:
        raise UserError("ieg_core/__init__.py has no __version__: expected the package's version")
    return match.group(1)


def build_command(
    engine: str, name: str, target: str, base: str, revision: str, flags: Sequence[str] = ()
) -> list[str]:
    """Returns the command that builds an image; it must run in the checkout's root.

    Args:
      engine: One of `ENGINES`.
      name: The image's name with its tag.
      target: "cpu" or "gpu".
      base: The base image; empty for the Dockerfile's.
      revision: The git revision that goes into the image.
      flags: Further flags of the engine.
    """
    verb = ("bud", "--layers") if engine == "buildah" else ("build",)
    arguments = {"BASE": base, "REVISION": revision, "VERSION": project_version()}
    settings = [f"--build-arg={key}={value}" for key, value in arguments.items() if value]
    return [
        engine, *verb, *flags, "--file", DOCKERFILE, "--target", target, *settings,
        "--tag", name, ".",
    ]  # fmt: skip


def build(arguments: argparse.Namespace) -> Image:
    """Builds the requested image."""
    if arguments.target not in TARGETS:
        raise UserError(f"TARGET={arguments.target}: expected {' or '.join(TARGETS)}")
    name = check_name(arguments.image)
    source = revision(arguments.dirty == "1")
    engine = find_engine(arguments.engine)
    # docker and podman resolve a name without a registry differently.
    host, slash, _ = name.partition("/")
    local = not slash or not ("." in host or ":" in host or host == "localhost")
    prefix = "localhost/" if local and engine != "docker" else ""
    tag = source if arguments.target == "gpu" else f"{source}-{arguments.target}"
    image = Image(engine, f"{prefix}{name}:{tag}", source, arguments.target)
    flags = shlex.split(arguments.build_flags)
    command = build_command(engine, image.name, image.target, arguments.base, image.revision, flags)
    print(f"Building {image.name} with {engine} ...", flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise FailedError(f"{engine} could not build {image.name}, see above")
    return image


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of the options shared by building and testing."""
    options = Parser(description=description, allow_abbrev=False)
    variables.add_arguments(options, "image")
    return options


@program("image")
def main() -> None:
    """Builds the image and prints how to use it."""
    image = build(parser(__doc__).parse_args())
    print(f"\n{image.name}")
    print(f"Push it to a registry of the cluster:  {RUNNERS[image.engine]} push {image.name}")
    print(f"and set it in cluster.yaml:            image: {image.name}")


if __name__ == "__main__":
    sys.exit(main())
