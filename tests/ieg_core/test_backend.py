# SPDX-License-Identifier: Apache-2.0
import ast
import inspect
from pathlib import Path

import keras
import pytest

from ieg_core import backend
from ieg_core.host.runtime import BACKENDS
from ieg_core.store import fingerprint
from tests import backends

FOLDER = Path(backend.__file__).parent


@pytest.mark.parametrize("name", BACKENDS)
def test_each_backend_has_every_function_and_is_tested(name):
    """What CONTRIBUTING.md asks of a new one."""
    module = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    defined = {node.name for node in module.body if hasattr(node, "name")}
    adapter = ast.walk(ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8")))
    taken = {
        node.attr
        for node in adapter
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "_adapter"
    }
    assert len(taken) > 10
    assert taken <= defined
    assert (FOLDER / f"batch_norm_{name}.py").exists()
    assert f'"{name}"' in inspect.getsource(fingerprint.library_versions)
    assert name in backends.BACKENDS


def test_what_keras_json_sets_is_undone():
    """Keras has read the user's keras.json when our backend is imported."""
    assert keras.config.image_data_format() == "channels_last"
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    backend.set_keras_defaults()
    layer = keras.layers.Conv2D(1, 1)
    assert (layer.data_format, layer.dtype) == ("channels_last", "float32")
    assert keras.config.epsilon() == 1e-7
