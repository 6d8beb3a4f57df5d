# SPDX-License-Identifier: Apache-2.0
from tests.pipelines.conftest import compiled_once, kfp_stub, no_cluster, without_source_lines

__all__ = ["compiled_once", "kfp_stub", "no_cluster", "without_source_lines"]
