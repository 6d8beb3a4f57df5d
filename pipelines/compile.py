# SPDX-License-Identifier: Apache-2.0
"""Compiles the noise sweep into packages for upload in the KFP UI, one per profile."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from components import IMAGE
from ieg_core.errors import UserError
from pipelines import checks, cluster_files, noise_sweep, profiles
from pipelines.cluster_files import ClusterFile
from pipelines.profiles import Profile
from pipelines.revision import revision


def main(cluster_file: str, output: Path) -> int:
    """Runs `python -m pipelines compile`; returns the exit code."""
    for path in write_packages(all_profiles(cluster_files.load(cluster_file or None)), output):
        print(path)
    return 0


def all_profiles(cluster_file: ClusterFile) -> list[Profile]:
    """Returns the profiles of all packages, each with the image that its package names."""
    image = image_of(cluster_file)
    local = replace(profiles.LOCAL, image=image)
    vertex = [profiles.vertex(cluster_file, image)] if cluster_file.vertex.data_dir else []
    return [local, profiles.cpu(cluster_file, image), profiles.gpu(cluster_file, image), *vertex]


def image_of(cluster_file: ClusterFile) -> str:
    """Returns the cluster file's image, or else that of this checkout's revision.

    Raises:
      UserError: When the image's tag does not identify the code, or there is no revision.
    """
    if cluster_file.image == IMAGE:
        raise UserError(
            f"image is {IMAGE!r}, the name for local runs: expected a tag that identifies the "
            "code; `make image` prints it"
        )
    return cluster_file.image or image_of_revision()


def image_of_revision() -> str:
    """Returns the image that `make image` builds from this checkout, tagged with the revision.

    Raises:
      UserError: When this folder is not a git checkout.
    """
    try:
        tag = revision(dirty=True)
    except (OSError, UserError):
        raise UserError(
            "this folder is not a git checkout, so there is no revision to tag the image with: set "
            "`image` in the cluster file"
        ) from None
    return f"{IMAGE.partition(':')[0]}:{tag}"


def require_cuda(profile: Profile) -> Profile:
    """Returns a profile, unless its image is one without CUDA and its trainings request GPUs.

    Raises:
      UserError: When it is: every training would start a node with a GPU, and fail there.
    """
    if profile.accelerator and profile.image.endswith("-cpu"):
        raise UserError(
            f"the image {profile.image} has no CUDA, but the profile is {profile.name}: expected "
            "the image of `make image TARGET=gpu`; push it and set image in the cluster file, or "
            "use PROFILE=cpu"
        )
    return profile


def package(profile: Profile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compiles the noise sweep for a profile and checks it for KFP's pitfalls.

    Args:
      profile: The profile.

    Returns:
      The pipeline's specification and its platform part, which may be empty.

    Raises:
      ValueError: When a check fails.
    """
    pipeline = noise_sweep.build(profile)
    where = checks.PACKAGE
    if profile.pod_templates:
        where = checks.CLUSTER if profile.kubernetes else checks.VERTEX
    checks.require_sound(checks.compiled(pipeline), checks.ALL + where)
    return (
        json_format.MessageToDict(pipeline.pipeline_spec),
        json_format.MessageToDict(pipeline.platform_spec),
    )


def write_packages(chosen: Sequence[Profile], folder: Path) -> list[Path]:
    """Writes the package of each profile; the same pipeline always gives the same bytes.

    Args:
      chosen: The profiles.
      folder: Where to write.

    Returns:
      The files, in the profiles' order.

    Raises:
      ValueError: When a check of a compiled pipeline fails.
    """
    texts = {}
    for profile in chosen:
        documents = [document for document in package(profile) if document]
        texts[profile.name] = yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / f"noise_sweep-{name}.yaml"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
