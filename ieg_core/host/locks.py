# SPDX-License-Identifier: Apache-2.0
"""The kernel's locks on files, which end with their process, and file systems without them."""

import errno
import fcntl
import os
import stat
from pathlib import Path


def open_lock(path: Path, *, own: bool = False, create: bool = True) -> int:
    """Opens a file to lock it; never waits, as it would for the other end of a pipe.

    Args:
      path: The file; a link to a file is not followed.
      own: Whether the file must be this user's, as in a folder that all users can write.
      create: Whether the file is created if it is missing.

    Returns:
      The file's handle.

    Raises:
      OSError: When the file cannot be opened, is not a regular file, or is another user's.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    handle = os.open(path, flags, 0o644)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or (own and status.st_uid != os.getuid()):
        os.close(handle)
        raise OSError(errno.EPERM, "not a regular file of this user", str(path))
    return handle


def lock(handle: int, *, wait: bool = False, shared: bool = False) -> bool | None:
    """Locks an open file until its handle is closed.

    Args:
      handle: The handle of the file or folder.
      wait: Whether to wait while another process holds the lock.
      shared: Whether other processes may hold a shared lock at the same time.

    Returns:
      Whether the lock was acquired; None if the file system does not support locks, as some
      network file systems do not.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
