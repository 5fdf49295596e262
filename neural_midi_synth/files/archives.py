"""Zip files that are written the same each time, and read from anybody: checked before anything of them is unpacked."""

from __future__ import annotations

import os
import pathlib
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import write_aside

# The end of a zip file without a comment: signature, numbers of disks, entries here and in all, size and place of the
# directory, length of the comment. A zip64 file has a locator of 20 bytes before it.
_END_BYTES, _END, _LOCATOR_BYTES, _LOCATOR = 22, b"PK\x05\x06", 20, b"PK\x06\x07"
_DIRECTORY_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # That zip files can tell.
_IN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


def write_zip(path: str | os.PathLike, members: Mapping[str, bytes]) -> None:
    """Writes a zip file, whole or not at all; the same members give the same bytes.

    Args:
        path: The file.
        members: Name → content, in the order to be written.

    Raises:
        DataError: It can't be written.
    """
    path = pathlib.Path(path)
    try:
        with write_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                member = zipfile.ZipInfo(name, _FIRST_DATE)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.create_system = 3  # Unix, wherever it is written.
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(member, content)
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}). Choose another output.") from error


class Archive:
    """A zip file that may be anybody's. What it holds is known, and checked, before any of it is unpacked.

    Attributes:
        names: Of its members.
    """

    def __init__(self, path: str | os.PathLike, most_bytes: Callable[[str], int], most_members: int = 32) -> None:
        """Reads the directory of the file.

        Args:
            path: The file.
            most_bytes: Name of a member → how many bytes it may have; 0 where it may not be there.
            most_members: How many it may have.

        Raises:
            DataError: It is no such file, damaged, or holds what it may not: too much, paths, links, or secrets.
        """
        self._path = pathlib.Path(path)
        try:
            _check_end(self._path, most_members)
            with zipfile.ZipFile(self._path) as archive:
                self._members = {member.filename: member for member in archive.infolist()}
                if len(self._members) != len(archive.infolist()):
                    raise DataError(f"{self._path}: holds two files of one name. Ask for it again.")
        except OSError as error:
            raise DataError(f"{self._path}: can't be read ({error.strerror}). Check its name.") from error
        except _IN_ZIP as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self._path}: is damaged. Ask for it again.") from error
        for member in self._members.values():
            _check_member(self._path, member, most_bytes(member.filename))
        self.names = tuple(self._members)

    def read(self, name: str) -> bytes:
        """Returns the content of a member.

        Raises:
            DataError: There is none of that name, or it is damaged.
        """
        if name not in self._members:
            raise DataError(f"{self._path}: {name} is missing. Ask for it again.")
        member = self._members[name]
        content = bytearray()
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(member) as file:
                while block := file.read(min(_BLOCK_BYTES, member.file_size + 1 - len(content))):
                    content += block
                    if len(content) > member.file_size:
                        break
        except (OSError, *_IN_ZIP) as error:
            raise DataError(f"{self._path}: {name} is damaged. Ask for it again.") from error
        if len(content) != member.file_size:
            raise DataError(f"{self._path}: {name} is not as long as it says. Ask for it again.")
        return bytes(content)


def _check_end(path: pathlib.Path, most_members: int) -> None:
    """Raises DataError where the directory is larger than it may be, or the file none of this kind."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END_BYTES - _LOCATOR_BYTES, 0))
        end = file.read()
    if len(end) < _END_BYTES or end[-_END_BYTES:-18] != _END:
        raise DataError(f"{path}: is no such file, or cut short. Ask for it again.")
    if end[-_END_BYTES - _LOCATOR_BYTES :].startswith(_LOCATOR) and len(end) == _END_BYTES + _LOCATOR_BYTES:
        raise DataError(f"{path}: is a zip64 file, which is for larger ones. Ask for it again.")
    members, n_bytes = int.from_bytes(end[-12:-10], "little"), int.from_bytes(end[-10:-6], "little")
    if members > most_members or n_bytes > _DIRECTORY_BYTES:
        raise DataError(f"{path}: holds {members} files, more than the {most_members} it may. Ask for it again.")


def _check_member(path: pathlib.Path, member: zipfile.ZipInfo, most_bytes: int) -> None:
    """Raises DataError where a member is not what it may be, by what the directory tells of it."""
    name = repr(member.orig_filename[:80])
    if member.filename != member.orig_filename or most_bytes <= 0:
        raise DataError(f"{path}: holds {name}, which does not belong there. Ask for it again.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise DataError(f"{path}: holds {name}, which is a link or no file. Ask for it again.")
    if member.flag_bits & 1:
        raise DataError(f"{path}: holds {name}, which has a password. Ask for it again.")
    if member.file_size > most_bytes:
        raise DataError(
            f"{path}: holds {name} with {member.file_size} bytes, more than the {most_bytes} it may have. "
            "Ask for it again."
        )
