# SPDX-License-Identifier: Apache-2.0
"""The steps of the pipelines as KFP components, one a file: they parse, call `ieg_core` and log.

All are lightweight components of one image, so that the same code runs in a subprocess here and in
a pod. A component's source is copied alone: its body imports what it needs.
"""

import functools

from kfp import dsl

IMAGE = "ieg-python:0.1.0"
"""The image's name. A local run ignores it, but kfp.local warns unless it holds "python"."""

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""`dsl.component` without the default that installs kfp by pip into every task's environment."""
