# SPDX-License-Identifier: Apache-2.0
"""The steps of the pipelines as KFP components, one per file: they parse, call `ieg_core`, log.

All are lightweight components with the same image, so the same code runs in a subprocess here and
in a pod. KFP copies only a component's source: its body must import what it needs.
"""

import functools

from kfp import dsl

IMAGE = "ieg-python:0.1.0"
"""The image's name. A local run ignores it, but kfp.local warns unless it contains "python"."""

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""`dsl.component` without its default of installing kfp with pip in every task."""
