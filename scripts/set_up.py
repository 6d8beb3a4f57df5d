# SPDX-License-Identifier: Apache-2.0
"""Installs exactly the packages of a lock file into `.venv`; needs only Python, venv and pip.

1. `python3 -m venv .venv`
2. pip installs only uv, with the version and hashes of the lock file
3. uv installs the rest with the same hashes, compiled to bytecode (without it the first import of
   TensorFlow takes 17 s), then this package, editable

`make` runs it in the repository's root. pip's configuration (a mirror, local wheels, certificates,
a proxy) is passed on to uv, which does not read it.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

VENV = Path(".venv")
LOCK = Path("requirements.lock")
GPU_LOCK = Path("requirements-gpu.lock")  # the same, plus CUDA's libraries
# All but "gpu", which the GPU's lock file adds.
EXTRAS = ("features", "gcs", "jax", "pipelines", "tfds")
STAMP = VENV / ".ready"
MINIMUM_PYTHON = (3, 11)


def locked_requirement(lock: str, name: str) -> str:
    """Returns a package's entry in a lock file, including its hashes.

    Args:
      lock: The lock file's text.
      name: The package's name.

    Returns:
      The line "name==version" and its continuation lines.

    Raises:
      SystemExit: When the lock file has no such entry.
    """
    match = re.search(rf"^{re.escape(name)}==(?:.*\\\n)*.*$", lock, re.MULTILINE)
    if match is None:
        raise SystemExit(f"setup: {LOCK} does not pin {name}: run `make lock`")
    return match.group() + "\n"


def read_pip_configuration(listing: str) -> dict[str, str]:
    """Parses the output of `pip config list`; as in pip, the environment overrides files."""
    options: dict[str, tuple[int, str]] = {}
    rank = {"global": 0, "install": 1, ":env:": 2}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, dot, option = key.rpartition(".")
        if equals and dot and section in rank:
            text = str(ast.literal_eval(value))
            if option not in options or options[option][0] <= rank[section]:
                options[option] = (rank[section], text)
    return {option: value for option, (_, value) in options.items()}


def uv_environment(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which uv finds packages in the same places as pip.

    pip queries all its indexes and takes the best version; uv by default stops at the first index
    that has the name. The hashes decide what may be installed, so pip's rule is safe here. A local
    index that does not exist is omitted: pip skips it, but uv would fail. Plain folders of wheels
    are not translated: set uv's variable for them, which is kept.

    Args:
      pip: pip's options, as returned by `read_pip_configuration`.
      environ: The current environment; uv's variables in it are kept.

    Returns:
      The complete environment for uv.
    """
    indexes = [place for place in pip.get("extra-index-url", "").split() if _exists(place)]
    wanted = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(indexes),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": pip.get("trusted-host", ""),
        "UV_HTTP_TIMEOUT": pip.get("timeout", pip.get("default-timeout", "")),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "HTTPS_PROXY": pip.get("proxy", ""),
        "HTTP_PROXY": pip.get("proxy", ""),
    }
    return {key: value for key, value in wanted.items() if value} | dict(environ)


def pip_configuration(python: Path) -> dict[str, str]:
    """Returns the configuration of the pip that belongs to `python`."""
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return read_pip_configuration(listing.stdout)


def _exists(place: str) -> bool:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).exists()
    return parts.scheme != "" or Path(place).exists()


def run(what: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Runs a command; if it fails, raises a SystemExit that names its purpose."""
    result = subprocess.run([str(part) for part in command], env=env, check=False)
    if result.returncode:
        raise SystemExit(f"setup: could not {what}, see above")


def make_environment() -> Path:
    """Creates the virtual environment if it is missing or broken; returns its interpreter."""
    python = VENV / "bin" / "python"
    probe = [str(python), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    usable = python.exists() and subprocess.run(probe, check=False).returncode == 0
    if not usable:
        what = f"create {VENV} (on Debian it needs the package python3-venv)"
        run(what, sys.executable, "-m", "venv", "--clear", VENV)
    return python


def install_uv(python: Path) -> Path:
    """Installs the locked version of uv if it is not installed yet; returns its path."""
    uv = VENV / "bin" / "uv"
    requirement = locked_requirement(LOCK.read_text(encoding="utf-8"), "uv")
    wanted = requirement.split()[0].removeprefix("uv==")
    if uv.exists():
        version = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
        if version.stdout.split()[1:2] == [wanted]:
            return uv
    if subprocess.run(
        [python, "-m", "pip", "--version"], capture_output=True, check=False
    ).returncode:
        run(f"install pip into {VENV}", python, "-m", "ensurepip")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(requirement)
        file.flush()
        run(
            f"install uv {wanted} (is there a network, or a mirror in pip's configuration?)",
            python, "-m", "pip", "install", "-qq", "--disable-pip-version-check",
            "--require-hashes", "--only-binary", ":all:", "-r", file.name,
        )  # fmt: skip
    return uv


def has_gpu() -> bool:
    """Returns whether this machine has an NVIDIA GPU and its driver."""
    if shutil.which("nvidia-smi") is None:
        return False
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "GPU 0" in answer.stdout


def install(uv: Path, python: Path, lock: Path, env: Mapping[str, str]) -> None:
    """Installs exactly the packages of `lock`, and this package, editable.

    Args:
      uv: The program uv.
      python: Interpreter of the environment.
      lock: The lock file.
      env: uv's environment variables.
    """
    target = ("--quiet", "--python", python)
    sync = (uv, "pip", "sync", *target)
    run(f"install {lock}", *sync, "--require-hashes", "--compile-bytecode", lock, env=env)
    own = ("--offline", "--no-deps", "--no-build-isolation", "--editable", ".")
    run("install this package", uv, "pip", "install", *target, *own, env=env)
    STAMP.touch()


def pin(uv: Path, env: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Writes both lock files from pyproject.toml; the GPU's uses the versions of the other."""
    extras = [f"--extra={extra}" for extra in EXTRAS]
    sources = ("pyproject.toml", "--group", "dev", *extras)
    scope = ("--universal", "--python-version", "3.11", "--generate-hashes")
    form = ("--custom-compile-command", "make lock", "--quiet")
    command = (uv, "pip", "compile", *sources, *scope, *form)
    run(f"write {LOCK}", *command, "-o", LOCK, *arguments, env=env)
    same = ("--extra", "gpu", "--constraint", LOCK)
    run(f"write {GPU_LOCK}", *command, *same, "-o", GPU_LOCK, env=env)


def main() -> None:
    """Sets up `.venv` and writes the stamp file that `make` checks.

    The argument "gpu" also installs CUDA's libraries, as on a machine with a GPU; "lock" pins the
    dependencies again instead.
    """
    if sys.version_info < MINIMUM_PYTHON:
        raise SystemExit(
            f"setup: expected Python 3.11 or newer, got {sys.version.split()[0]}: "
            "set PYTHON=/path/to/python3.11"
        )
    if "$" in os.getcwd():
        raise SystemExit(
            f"setup: the path {os.getcwd()!r} contains '$', which setuptools takes for the start "
            "of a variable: move the checkout"
        )
    os.environ["PIP_USER"] = "0"  # a virtual environment has no packages of the user
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task != "lock":
        print("Setting up .venv (once; a minute or two, most of it downloads) ...", flush=True)
    python = make_environment()
    uv = install_uv(python)
    env = uv_environment(pip_configuration(python), os.environ)
    is_cache_set = {"UV_CACHE_DIR", "XDG_CACHE_HOME"} & env.keys()
    if not is_cache_set and not os.access(os.path.expanduser("~"), os.W_OK):
        env.setdefault("UV_NO_CACHE", "1")
    if task == "lock":
        pin(uv, env, sys.argv[2:])
    else:
        install(uv, python, GPU_LOCK if task == "gpu" or has_gpu() else LOCK, env)


if __name__ == "__main__":
    main()
