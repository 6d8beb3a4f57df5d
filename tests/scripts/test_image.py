# SPDX-License-Identifier: Apache-2.0
"""The image's recipe: what goes in, under which name, by which engine."""

import ast
import fnmatch
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from pipelines import revision
from scripts import image, image_packages, set_up

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / image.DOCKERFILE).read_text()


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", lock, re.MULTILINE))


def test_the_linter_has_nothing_against_the_dockerfile():
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, ROOT / image.DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_linter_finds_what_is_wrong(tmp_path):
    linter = Path(sys.executable).parent / "hadolint"
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n")
    done = subprocess.run([linter, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3007" in done.stdout


def test_both_targets_end_as_the_pods_user_with_a_revision():
    for target in image.TARGETS:
        (stage,) = re.findall(
            rf"^FROM base AS {target}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S
        )
        assert "\nUSER 1000:1000\n" in stage
        assert 'org.opencontainers.image.revision="${REVISION}"' in stage
        assert f"COPY --from={target}-packages" in stage


def test_dependencies_come_before_the_source_and_the_base_can_be_replaced():
    assert DOCKERFILE.index("requirements.lock") < DOCKERFILE.index("COPY ieg_core")
    assert "ARG BASE=python:3.11-slim\n" in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {
        "${BASE}",
        "base",
    }


def test_the_build_sees_what_the_image_is_made_of_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert set(allowed) <= {*revision.SOURCES, "docker/ieg"}
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert copied
    for word in copied:
        assert any(fnmatch.fnmatch(name, f"{word}*") for name in allowed), word
    listing = ["git", "ls-files", "--error-unmatch", *allowed]
    assert subprocess.run(listing, cwd=ROOT, capture_output=True).returncode == 0


LOCK = """\
# made
alpha==1 \\
    --hash=sha256:aa
    # via
    #   beta
    #   ieg-core (pyproject.toml)
beta==2 ; sys_platform == 'linux' \\
    --hash=sha256:bb
    # via docker
delta==3 \\
    --hash=sha256:cc
    # via alpha
docker==4 \\
    --hash=sha256:dd
    # via ieg-core (pyproject.toml)
pytest==5 \\
    --hash=sha256:ee
    # via ieg-core (pyproject.toml:dev)
zeta==6 \\
    --hash=sha256:ff
    # via pytest
"""


def test_of_a_lock_file_stays_what_the_project_needs():
    kept = image_packages.needed(LOCK)
    assert names(kept) == {"alpha", "delta"}
    assert "delta==3 \\\n    --hash=sha256:cc\n" in kept
    assert names(image_packages.needed(LOCK, unused=())) == {"alpha", "beta", "delta", "docker"}


def test_what_is_selected_can_be_installed_from_alone(tmp_path):
    lock = ROOT / "requirements.lock"
    image_packages.select(lock, tmp_path / "selected.lock")
    selected = (tmp_path / "selected.lock").read_text()
    assert set_up.locked_requirement(selected, "uv") == set_up.locked_requirement(
        lock.read_text(), "uv"
    )
    assert image_packages.needed(selected) == image_packages.needed(lock.read_text())


def needed_of(name: str) -> set[str]:
    return names(image_packages.needed((ROOT / name).read_text()))


def test_no_developers_tool_gets_into_the_image():
    kept = needed_of("requirements.lock")
    assert not kept & {
        "pytest",
        "mypy",
        "ruff",
        "uv",
        "pre-commit",
        "kubernetes-validate",
        "docker",
    }
    assert {"kfp", "keras", "tensorflow", "jax", "google-cloud-storage"} <= kept
    cuda = needed_of("requirements-gpu.lock") - kept
    assert len(cuda) > 5
    assert all(name.startswith("nvidia-") for name in cuda)


def test_everything_that_the_science_imports_gets_into_the_image():
    providers = importlib.metadata.packages_distributions()
    kept = {name.replace("-", "_") for name in needed_of("requirements.lock")}
    imported = set()
    for path in (ROOT / "ieg_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    imported -= {*sys.stdlib_module_names, "ieg_core"}
    assert {"tensorflow", "keras", "safetensors"} <= imported
    # What no lock file has is a package that users bring themselves.
    for module in imported & set(providers):
        found = {name.lower().replace("-", "_") for name in providers[module]}
        assert found & kept, f"{module} of {found} is not in the image"


def stand_in(folder: Path, name: str, code: int) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)


def test_the_first_engine_that_answers_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    stand_in(tmp_path, "docker", 1)  # installed, but its daemon does not run
    with pytest.raises(UserError, match="found no working engine"):
        image.find_engine("")
    stand_in(tmp_path, "buildah", 0)
    assert image.find_engine("") == "buildah"
    with pytest.raises(UserError, match="install podman"):
        image.find_runner("buildah")
    stand_in(tmp_path, "podman", 0)
    assert image.find_engine("") == "podman"
    assert image.find_runner("buildah") == "podman"
    with pytest.raises(UserError, match="found no working engine"):
        image.find_engine("docker")
    with pytest.raises(UserError, match="ENGINE=kaniko"):
        image.find_engine("kaniko")


@pytest.mark.parametrize("script", ["image", "image_test"])
def test_without_an_engine_it_says_so_in_one_line(script, tmp_path):
    (tmp_path / "git").symlink_to("/usr/bin/git")
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", "--dirty=1"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "found no working engine" in done.stderr


@pytest.fixture
def checkout(tmp_path):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    (tmp_path / "ieg_core").mkdir()
    (tmp_path / "ieg_core" / "a.py").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_the_tag_is_the_revision(checkout):
    assert re.fullmatch(r"[0-9a-f]{12}", image.revision(False, checkout))
    (checkout / "notes.txt").write_text("2")  # does not go into the image
    assert re.fullmatch(r"[0-9a-f]{12}", image.revision(False, checkout))


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_a_changed_tree_is_refused_or_marked(checkout, name):
    (checkout / "ieg_core" / name).write_text("2")
    with pytest.raises(UserError, match=rf"1 changed files.*{name}.*DIRTY=1"):
        image.revision(False, checkout)
    assert re.fullmatch(r"[0-9a-f]{12}-dirty", image.revision(True, checkout))


def test_without_a_checkout_there_is_no_tag(tmp_path):
    with pytest.raises(UserError, match="not a git checkout"):
        image.revision(True, tmp_path)


@pytest.mark.parametrize("name", ["ieg-python", "host:5000/ieg-python", "r.example/a/ieg-python"])
def test_a_name_without_a_tag_is_taken(name):
    assert image.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["ieg-python:1", "r.example/ieg-python:latest", "Ieg-python", "", "ieg"]
)
def test_another_name_is_refused_in_one_line(name):
    with pytest.raises(UserError, match=r"^IMAGE=") as caught:
        image.check_name(name)
    assert "\n" not in str(caught.value)


def test_the_build_command_hands_on_what_was_asked():
    command = image.build_command("podman", "a-python:1", "cpu", "my/base:3", "1a2b", ["--pull"])
    assert command[:2] == ["podman", "build"]
    for word in ("--build-arg=BASE=my/base:3", "--build-arg=REVISION=1a2b", "--pull"):
        assert word in command
    command = image.build_command("buildah", "a-python:1", "gpu", "", "1a2b")
    assert command[:2] == ["buildah", "bud"]
    assert not any("BASE" in word for word in command)


def test_another_users_checkout_has_a_revision_too(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert re.fullmatch(r"[0-9a-f]{12}", image.revision(False, checkout))
