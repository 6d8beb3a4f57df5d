# SPDX-License-Identifier: Apache-2.0
"""The client of Google Cloud Storage, and the conversion of its exceptions into messages.

STORAGE_EMULATOR_HOST selects an emulator instead of the cloud, as it does for Google's library.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from ieg_core.errors import UserError, missing_extra

SCHEME = "gs://"


@functools.cache
def require_library() -> None:
    """Raises a UserError if the extra `gcs` is not installed."""
    if importlib.util.find_spec("google_crc32c") is None:
        raise missing_extra("google-cloud-storage", "gcs")


def open_client() -> Any:
    """Returns the `google.cloud.storage.Client` that this process shares.

    Raises:
      UserError: When there are no credentials.
    """
    return _client_of(os.environ.get("STORAGE_EMULATOR_HOST", ""))


@functools.lru_cache(maxsize=4)
def _client_of(emulator: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    if emulator:
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    try:
        # Objects do not need a project, but without one the client searches for it and may fail.
        return storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT", "none"))
    except GoogleAuthError as error:
        raise UserError(
            "no credentials for Google Cloud Storage: run `gcloud auth application-default login`, "
            "or give the pod a service account (docs/cluster.md)"
        ) from error


@contextlib.contextmanager
def errors_in_words(url: str, *, missing_is_bucket: bool = False) -> Iterator[None]:
    """Converts exceptions of the cloud's client into one-line errors.

    Args:
      url: The requested URL.
      missing_is_bucket: Whether "not found" means that the bucket does not exist.

    Raises:
      UserError: When the request is refused or the cloud cannot be reached.
      NotFound: Of google.api_core.exceptions, when the object does not exist.
      PreconditionFailed: Of google.api_core.exceptions, when the generation does not match.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    bucket = SCHEME + url.removeprefix(SCHEME).partition("/")[0]
    try:
        yield
    except exceptions.PreconditionFailed:
        raise
    except exceptions.NotFound as error:
        if not missing_is_bucket:
            raise
        raise UserError(f"there is no bucket {bucket}: create it or name another one") from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise UserError(
            f"no permission for {url}: give this account roles/storage.objectUser on {bucket}"
        ) from error
    except GoogleAuthError as error:
        raise UserError(
            f"cannot log in to reach {url} ({str(error).splitlines()[0]}): log in again with "
            "`gcloud auth application-default login`"
        ) from error
    except (exceptions.GoogleAPIError, requests.RequestException) as error:
        raise UserError(
            f"cannot reach {url} ({type(error).__name__}): check the network and try again"
        ) from error
