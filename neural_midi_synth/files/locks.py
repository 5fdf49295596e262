"""One writer at a time: a folder that one process writes is refused to a second one."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from neural_midi_synth.errors import DataError

if os.name == "nt":
    import msvcrt
else:
    import fcntl

# What the operating systems answer where somebody else has the lock; anything else means that there are no locks here.
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
LOCK_NAME = ".lock"
"""An empty file in the folder, which the operating system locks. It stays there; only the lock comes and goes."""


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike) -> Iterator[None]:
    """Is the only one to write a folder while the block lasts. Readers need not ask.

    The operating system gives the lock back when the process ends, however it ends. On a file system that has no locks
    (some network drives) nobody is refused.

    Args:
        folder: Made where it does not exist.

    Yields:
        Nothing.

    Raises:
        DataError: Another process, or another thread of this one, is writing the folder; or it can't be written.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK_NAME, "a")  # noqa: SIM115  (closed by the block below)
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror}). Choose another output.") from error
    with file:
        try:
            if os.name == "nt":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise DataError(
                    f"{folder}: another training is writing there. Wait for its end, stop it, or choose another folder."
                ) from error
        yield
