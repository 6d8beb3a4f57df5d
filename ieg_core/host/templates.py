# SPDX-License-Identifier: Apache-2.0
"""HTML templates: escaped, strict about undefined names, without the blank lines of their tags."""

import functools
from collections.abc import Callable
from pathlib import Path

import jinja2


@functools.cache
def load_template(path: Path, *filters: Callable[[str], str]) -> jinja2.Template:
    """Compiles a template, once in a process.

    Args:
      path: The file; templates that it includes are in the same folder.
      *filters: Functions that it uses as filters, by their names.

    Raises:
      jinja2.TemplateError: When the template is missing or not valid.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {each.__name__: each for each in filters}
    return environment.get_template(path.name)
