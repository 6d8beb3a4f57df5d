# SPDX-License-Identifier: Apache-2.0
"""The files of a results root with their sizes and ages, in a folder or in a bucket."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host.files import writable
from ieg_core.store import gcs, leases
from ieg_core.store.layout import require_this_version
from pipelines.cleanup import File, Root


class FolderRoot:
    """A results root in a folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"there is no results root {folder}: set OUT=…")
        require_this_version(folder)
        self.folder = folder
        self.place = str(folder)

    def files(self) -> list[File]:
        """Lists every file; links are not followed."""
        files = []
        for owner, _, names in os.walk(self.folder):
            for name in names:
                path = Path(owner) / name
                with contextlib.suppress(FileNotFoundError):  # a running trial's temporary files
                    status = path.lstat()
                    relative = path.relative_to(self.folder).as_posix()
                    files.append(File(relative, status.st_size, status.st_mtime))
        return files

    def remove(self, files: Sequence[File], trial: str) -> bool:
        """Removes files and the folders that they leave empty.

        Returns:
          False if another process is working on their trial.
        """
        lock = leases.trial_lock(self.folder / trial) if trial else contextlib.nullcontext()
        try:
            with writable(self.folder), lock:
                for file in files:
                    (self.folder / file.name).unlink(missing_ok=True)
                self._prune(files)
        except leases.TrialBusyError:
            return False
        return True

    def _prune(self, files: Sequence[File]) -> None:
        """Removes folders that are empty or contain only a trial's lock."""
        above = {parent for file in files for parent in (self.folder / file.name).parents}
        inside = [folder for folder in above if folder.is_relative_to(self.folder)]
        for folder in sorted(inside, key=lambda path: -len(path.parts)):
            if folder != self.folder and folder.is_dir():
                if os.listdir(folder) == [leases.LOCK]:
                    (folder / leases.LOCK).unlink()
                with contextlib.suppress(OSError):
                    folder.rmdir()


class BucketRoot:
    """A results root in a bucket."""

    def __init__(self, url: str) -> None:
        self.place = url
        self.generations: dict[str, int] = {}

    def files(self) -> list[File]:
        """Lists every object."""
        listed = gcs.list_files(self.place)
        self.generations = {name: stored.generation for name, stored in listed.items()}
        return [File(name, stored.size, stored.updated) for name, stored in listed.items()]

    def remove(self, files: Sequence[File], trial: str) -> bool:
        """Removes the listed generations of objects; newer ones stay.

        Returns:
          False if an object of their trial has been written since.
        """
        if trial:
            now = gcs.list_files(self.place, f"{trial}/")
            if any(self.generations.get(name) != stored.generation for name, stored in now.items()):
                return False
        gcs.delete(self.place, {file.name: self.generations[file.name] for file in files})
        return True


def open_root(place: str) -> Root:
    """Opens a results root: a folder or gs://bucket/prefix.

    Raises:
      UserError: When the folder does not exist.
    """
    if gcs.is_url(place):
        return BucketRoot(place)
    return FolderRoot(Path(place))
