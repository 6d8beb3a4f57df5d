# SPDX-License-Identifier: Apache-2.0
"""The pipelines: what runs after what, where, how often. Run as `python -m pipelines`."""

import sys

# From the repository's root our folder docker/ passes for the Docker SDK, which kfp.local imports
# where there is one; it then breaks on what the folder lacks.
sys.modules.setdefault("docker", None)  # type: ignore[arg-type]
