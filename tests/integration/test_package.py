# SPDX-License-Identifier: Apache-2.0
"""The package as others install it: what is in the wheel, what it brings, and that it works."""

import os
import re
import runpy
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from ieg_core import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
UV = ROOT / ".venv" / "bin" / "uv"
EXTRAS_ALONE = {
    "docker",
    "google-cloud-storage",
    "jax",
    "kfp",
    "kfp-kubernetes",
    "kubernetes",
    "tensorflow-datasets",
}
FIT = """
import numpy as np
from sklearn.datasets import load_digits

import ieg_core

pixels, labels = load_digits(return_X_y=True)
fitted = ieg_core.fit(
    pixels.reshape(-1, 8, 8, 1)[:300] / 16,
    labels[:300],
    "resnet11",
    method="supervised",
    steps=2,
    settings=["augmentation.flip=false"],
    out="runs",
)
assert len(fitted.audit.ids) == 300
print("fitted", fitted.run_dir)
"""


def tracked(*patterns: str) -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def test_links_to_files_lead_to_the_repository_on_the_package_page():
    absolute_links = runpy.run_path(str(ROOT / "setup.py"))["absolute_links"]
    text = (
        "![a](docs/a.png) [b](docs/b.md#part) [c](https://example.org/c) [d](#d) "
        "[e f](LICENSE) [g](mailto:g@example.org)"
    )
    assert absolute_links(text, "https://r.example") == (
        "![a](https://r.example/raw/main/docs/a.png) "
        "[b](https://r.example/blob/main/docs/b.md#part) [c](https://example.org/c) [d](#d) "
        "[e f](https://r.example/blob/main/LICENSE) [g](mailto:g@example.org)"
    )


def test_the_citation_names_this_version_and_license():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    assert f'\nrepository-code: "{REPOSITORY}"\n' in citation


def test_the_changelog_has_this_version_and_unreleased_changes_first():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> Path:
    """The wheel and the source archive of the tracked files alone, built as a release is."""
    source = tmp_path_factory.mktemp("source")
    kept = ("ieg_core", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    for name in tracked(*kept):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    python = ROOT / ".venv" / "bin" / "python"
    options = ("--offline", "--no-build-isolation", "--python", python, "--out-dir", out)
    run(UV, "build", "--wheel", "--sdist", *options, source, cwd=source)
    return out


@pytest.fixture(scope="session")
def wheel(distributions) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_science_and_the_license(wheel):
    assert wheel.name == f"ieg_core-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == set(tracked("ieg_core"))
    assert {Path(name).suffix for name in inside} >= {".py", ".j2", ".css", ".js"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_source_archive_builds_the_same_readme(distributions):
    (found,) = distributions.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "setup.py", "pyproject.toml"} <= names


@pytest.mark.slow
def test_the_package_page_says_whose_it_is_and_has_no_relative_link(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The ieg-python authors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    extras = set(metadata.get_all("Provides-Extra", []))
    assert extras == {"features", "pipelines", "gcs", "tfds", "jax", "gpu", "onnx"}
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert any(link.startswith(f"{REPOSITORY}/blob/main/docs/") for link in links)
    assert all(re.match(r"https?://|#", link) for link in links), links
    for link in links:
        if link.startswith(REPOSITORY):
            path = re.sub(r"^/(blob|raw)/main/|#.*$", "", link.removeprefix(REPOSITORY))
            assert (ROOT / path).exists(), link


def install(wheel: Path, folder: Path) -> Path:
    """Installs the wheel as pip would, at the lock file's versions; returns the environment."""
    set_up = runpy.run_path(str(ROOT / "scripts" / "set_up.py"))
    python = ROOT / ".venv" / "bin" / "python"
    env = set_up["uv_environment"](set_up["pip_configuration"](python), os.environ)
    constraints = folder / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9][^\n]*?) \\$", lock, re.MULTILINE)
    constraints.write_text("\n".join(pins))
    run(UV, "venv", "--quiet", "--python", python, folder / "venv", cwd=folder, env=env)
    command = [UV, "pip", "install", "--quiet", "--python", folder / "venv" / "bin" / "python"]
    done = subprocess.run(
        [*command, "--constraint", constraints, wheel],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode and "error sending request" in done.stderr and not os.environ.get("CI"):
        pytest.skip("no package registry answers, and uv's cache does not hold every package")
    assert done.returncode == 0, done.stderr
    return folder / "venv"


@pytest.fixture(scope="session")
def venv(wheel, tmp_path_factory) -> Path:
    """An environment with the package as pip installs it, without any extra."""
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def outside() -> dict[str, str]:
    """The environment of a user who has no repository."""
    kept = ("HOME", "PATH", "LANG", "TMPDIR", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.mark.slow
def test_installing_the_wheel_brings_no_client_of_a_cluster_or_a_cloud(venv, tmp_path):
    listing = run(UV, "pip", "freeze", "--python", venv / "bin" / "python", cwd=tmp_path)
    installed = set(re.findall(r"^([a-z0-9-]+)", listing, re.MULTILINE))
    assert {"ieg-core", "keras", "tensorflow"} <= installed
    assert not installed & EXTRAS_ALONE


@pytest.mark.slow
def test_the_installed_package_trains_outside_the_repository(venv, outside, tmp_path):
    train = ("train", "--dataset", "digits_uniform_0.4", "--method", "supervised", "--steps", "2")
    run(venv / "bin" / "ieg", *train, cwd=tmp_path, env=outside)
    assert list(tmp_path.glob("runs/*/digits_uniform_0.4-supervised-*/result.json"))
    # `fit` trains in a process of its own, so its caller is a file.
    (tmp_path / "fit.py").write_text(FIT)
    assert "fitted" in run(venv / "bin" / "python", "fit.py", cwd=tmp_path, env=outside)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "backend", "arguments"),
    [
        ("tfds", "tensorflow", ["prepare", "cifar10_uniform_0.4"]),
        ("jax", "jax", ["train", "--dataset", "digits_uniform_0.4", "--method", "supervised"]),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    venv, outside, tmp_path, extra, backend, arguments
):
    refused = subprocess.run(
        [venv / "bin" / "ieg", *arguments],
        cwd=tmp_path,
        env=outside | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert f"is not installed: pip install 'ieg-core[{extra}]'" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("call", ["read(url)", "list_files(url)", "write(url, b'')"])
def test_a_bucket_without_its_extra_is_refused_likewise(venv, outside, tmp_path, call):
    code = (
        "from ieg_core.errors import UserError\n"
        "from ieg_core.store import gcs\n"
        "url = 'gs://bucket/file'\n"
        f"try:\n    gcs.{call}\nexcept UserError as error:\n    print(error)\n"
    )
    printed = run(venv / "bin" / "python", "-c", code, cwd=tmp_path, env=outside)
    assert printed == "google-cloud-storage is not installed: pip install 'ieg-core[gcs]'\n"
