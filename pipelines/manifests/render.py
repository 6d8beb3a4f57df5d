# SPDX-License-Identifier: Apache-2.0
"""Renders k8s/ for the cluster's namespace and image, and checks the result before you apply it.

Each kustomization becomes one file in build/k8s/, provided that it passes the policies
(pipelines/manifests/policies.py) and the schemas of every Kubernetes release from 1.29 on, which
also reject misspelled keys.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from kubernetes_validate.utils import all_versions, major_minor

from ieg_core.errors import EXIT_OK, EXIT_USER_ERROR
from ieg_core.host.program import Parser, program
from pipelines import cluster_files, profiles
from pipelines.cluster_files import ClusterFile
from pipelines.compile import image_of
from pipelines.manifests import kustomize, policies

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "k8s"
OLDEST = (1, 29)
PLACEHOLDER = "ieg-python"


def kustomizations() -> list[str]:
    """Returns the names of the folders that can be applied: all but the base."""
    folders = sorted(path.parent for path in SOURCE.glob("**/kustomization.yaml"))
    return [str(path.relative_to(SOURCE)) for path in folders if path.name != "base"]


def releases() -> list[str]:
    """Returns the Kubernetes releases that manifests must fit."""
    known = {tuple(map(int, major_minor(version).split("."))) for version in all_versions()}
    return [f"{major}.{minor}" for major, minor in sorted(known) if (major, minor) >= OLDEST]


def write_plan(name: str, folder: Path, cluster_file: ClusterFile, image: str) -> Path:
    """Writes a kustomization that adapts one of ours to a cluster file; returns its folder.

    Args:
      name: Folder of our kustomization, below k8s/.
      folder: Where to write.
      cluster_file: Its namespaces, claims and account, the pods' user and the API server's ports.
      image: The image of every pod.
    """
    plan = folder / name
    plan.mkdir(parents=True, exist_ok=True)
    repository, _, tag = image.rpartition(":")
    patches = [
        *_job_patches(name, cluster_file),
        *_policy_patches(cluster_file),
        *_unused_claims(cluster_file),
    ]
    value = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(SOURCE / name, plan)],
        "namespace": cluster_file.kubernetes_namespace,
        "images": [{"name": PLACEHOLDER, "newName": repository, "newTag": tag}],
        "patches": [
            {"target": target, "patch": yaml.safe_dump(operations, sort_keys=False)}
            for target, operations in patches
        ],
    }
    (plan / "kustomization.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return plan


Patch = tuple[dict[str, str], Any]
"""A kustomize target, and the patch for it: JSON (RFC 6902), or strategic where it is an object."""


def _job_patches(name: str, cluster_file: ClusterFile) -> Iterator[Patch]:
    """Gives the jobs the account, the user and the volumes of the sweeps' pods.

    An empty account or user is left to the platform; a volume that no pod mounts is left out.
    """
    chosen = cluster_file.user_and_group
    claims = {mount: claim for claim, mount in profiles.cpu(cluster_file).volumes.items()}
    for path in (SOURCE / name).glob("job.yaml"):
        job = yaml.safe_load(path.read_text(encoding="utf-8"))
        (container,) = kustomize.containers(job)
        values: dict[str, object] = {"serviceAccountName": cluster_file.service_account}
        for position, mount in reversed(list(enumerate(container["volumeMounts"]))):
            folder = mount["mountPath"]
            if claim := claims.get(folder):
                values[f"volumes/{position}/persistentVolumeClaim/claimName"] = claim
            elif folder != "/tmp":
                values[f"volumes/{position}"] = values[f"containers/0/volumeMounts/{position}"] = ""
                for key in ("command", "args"):
                    if folder in (words := container.get(key, [])):
                        values[f"containers/0/{key}/{words.index(folder)}"] = ""
        if job["metadata"]["name"] != policies.OWNER:
            user, group = chosen or (None, None)
            ids = {"runAsUser": user, "runAsGroup": group, "fsGroup": group}
            values |= {f"securityContext/{key}": value for key, value in ids.items()}
        elif chosen:
            values["containers/0/command/2"] = cluster_file.pod_user
        yield (
            {"kind": "Job", "name": job["metadata"]["name"]},
            [
                {"op": "replace", "path": f"/spec/template/spec/{key}", "value": value}
                if value
                else {"op": "remove", "path": f"/spec/template/spec/{key}"}
                for key, value in values.items()
            ],
        )


def _unused_claims(cluster_file: ClusterFile) -> Iterator[Patch]:
    """Leaves out the claims that no pod mounts: a volume costs money as long as it exists."""
    mounted = profiles.cpu(cluster_file).volumes
    for name in (ClusterFile.data_claim, ClusterFile.results_claim):
        if name not in mounted:
            claim = {"kind": "PersistentVolumeClaim", "name": name}
            yield claim, {"$patch": "delete", "kind": claim["kind"], "metadata": {"name": name}}


def _policy_patches(cluster_file: ClusterFile) -> Iterator[Patch]:
    """Opens KFP's namespace, the ports of the API server, and 443 only if a bucket needs it."""
    bucket = {443} if cluster_file.results.startswith("gs://") else set()
    ports = [
        {"protocol": "TCP", "port": port} for port in sorted(bucket.union(cluster_file.api_ports))
    ]
    yield (
        {"kind": "NetworkPolicy", "name": "ieg"},
        [
            {
                "op": "replace",
                "path": "/spec/egress/1/to/1/namespaceSelector/matchLabels",
                "value": {"kubernetes.io/metadata.name": cluster_file.kfp_namespace},
            },
            {"op": "replace", "path": "/spec/egress/2/ports", "value": ports},
        ],
    )


def schema_errors(
    documents: Sequence[kustomize.Document], versions: Sequence[str] = ()
) -> list[str]:
    """Returns the schemas' errors, one line each.

    Args:
      documents: The objects.
      versions: Kubernetes releases; by default all from 1.29 on.
    """
    errors = []
    for document in documents:
        _, kind, name = kustomize.identity(document)
        for release in versions or releases():
            try:
                kubernetes_validate.validate(document, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.absolute_path)) or "object"
                errors.append(f"schema {release}: {kind} {name}: {path}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                errors.append(f"schema {release}: {kind} {name}: there is no such kind")
    return errors


def quota_warnings(
    documents: Sequence[kustomize.Document], cluster_file: ClusterFile, gpus: bool
) -> list[str]:
    """Returns a line for each quota that admits fewer concurrent trials than `parallelism`."""
    per_trial: dict[str, Any] = {"pods": 2}
    if gpus:
        per_trial[f"requests.{cluster_file.gpu.resource}"] = cluster_file.gpu.count
    return [
        f"the quota allows {hard[what]} {what}, but parallelism {cluster_file.parallelism} takes "
        f"{count * cluster_file.parallelism}: the other trials will wait"
        for document in documents
        if document["kind"] == "ResourceQuota"
        for hard in [document["spec"]["hard"]]
        for what, count in per_trial.items()
        if int(hard.get(what, 10**9)) < count * cluster_file.parallelism
    ]


@program("manifests")
def main(argv: Sequence[str] | None = None) -> int:
    """Renders, checks and writes every kustomization."""
    options = Parser(description=__doc__, allow_abbrev=False)
    options.add_argument(
        "--cluster", default="", help="cluster file; else IEG_CLUSTER, else cluster.yaml"
    )
    options.add_argument("--output", type=Path, default=ROOT / "build" / "k8s")
    arguments = options.parse_args(argv)
    cluster_file = cluster_files.load(arguments.cluster or None)
    image = image_of(cluster_file)
    folder = Path(os.path.realpath(arguments.output))
    print(
        f"namespace {cluster_file.kubernetes_namespace}, image {image}, checked against "
        f"Kubernetes {releases()[0]} to {releases()[-1]}"
    )
    problems: list[str] = []
    for each in kustomizations():
        documents = kustomize.render(write_plan(each, folder / "plans", cluster_file, image))
        findings = policies.findings(documents, cluster_file.parallelism) + schema_errors(documents)
        path = folder / f"{Path(each).name}.yaml"
        if findings:
            problems += [f"k8s/{each}: {line}" for line in findings]
            path.unlink(missing_ok=True)
            continue
        path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        print(f"  {os.path.relpath(path)}: {len(documents)} objects")
        for line in quota_warnings(
            documents, cluster_file, gpus=Path(each).name in ("gpu", "spot")
        ):
            print(f"    note: {line}")
    for line in problems:
        print(f"manifests: error: {line}", file=sys.stderr)
    return EXIT_USER_ERROR if problems else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
