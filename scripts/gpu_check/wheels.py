# SPDX-License-Identifier: Apache-2.0
"""The packages that a machine with JAX and PyTorch may lack, installed from carried wheels."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from ieg_core.errors import UserError

NEEDED = {
    "jax": "jax",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "keras": "keras",
    "optree": "optree",
    "namex": "namex",
    "rich": "rich",
    "markdown_it": "markdown-it-py",
    "mdurl": "mdurl",
    "pygments": "pygments",
    "absl": "absl-py",
    "h5py": "h5py",
    "ml_dtypes": "ml-dtypes",
    "packaging": "packaging",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
}
"""What the training steps import, module and package. Neither TensorFlow nor pyarrow, jinja2,
scikit-learn or tensorboard; PyTorch is needed by the stages `torch-…` alone."""


def make_importable(wheels: Path | None, state: Path) -> None:
    """Installs the wheels of a folder beside the state, and puts them on the path of imports.

    Args:
      wheels: The folder; None to install nothing.
      state: The state folder; its `site/` is the target, which is filled once.

    Raises:
      UserError: When the wheels cannot be installed, or a package is still missing.
    """
    if wheels is not None:
        site = (state / "site").absolute()
        files = sorted(map(str, wheels.glob("*.whl")))
        if not files:
            raise UserError(f"there is no wheel in {wheels}: expected files *.whl")
        if not site.exists():
            install = "-m pip install --quiet --no-index --no-deps --no-compile --target"
            done = subprocess.run(
                [sys.executable, *install.split(), str(site), *files],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise UserError(
                    f"cannot install the wheels of {wheels}: {done.stderr.strip()}; expected one "
                    f"wheel a package for Python {sys.version_info.major}.{sys.version_info.minor}"
                )
        sys.path.insert(0, str(site))
        importlib.invalidate_caches()
        paths = [str(site), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    missing = [package for name, package in NEEDED.items() if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"not installed: {', '.join(missing)}; expected all of {', '.join(NEEDED.values())}: "
            "give a folder with the missing wheels, --wheels"
        )
