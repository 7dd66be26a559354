"""Open regular files only.

Opening a named pipe waits for a writer, and a device may have no end. Every reader of the package
opens its file by one of these functions, so that anything but a regular file, or a link to one, is
an error at once.
"""

import errno
import os
import stat

_KINDS = {
    stat.S_IFIFO: 'a named pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


class NotRegularFileError(OSError):
    """The path names a pipe, a socket or a device. ``strerror`` says which."""


def regular_file(path: str | os.PathLike, flags: int) -> int:
    """Open a regular file; the opener for ``open(path, opener=regular_file)``.

    Args:
        path (path): The file. Links are followed.
        flags (int): As for :func:`os.open`.

    Returns:
        int: The file descriptor.

    Raises:
        OSError: The file cannot be opened, or is a directory.
        NotRegularFileError: It is a pipe, a socket or a device.
    """
    return _open(path, flags)[0]


def read_bytes(
    path: str | os.PathLike, n_byte: int | None = None, max_size: int | None = None
) -> bytes:
    """Read a regular file, with as few system calls as possible.

    Args:
        path (path): The file.
        n_byte (int): Number of bytes to read from its start; by default all.
        max_size (int): Larger files are refused before memory is allocated. By default none are.

    Returns:
        bytes: The content.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is larger than ``max_size``.
    """
    handle, status = _open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if max_size is not None and status.st_size > max_size:
            raise OSError(
                errno.EFBIG, f'has {status.st_size:,} bytes, more than {max_size:,}', str(path)
            )
        n_left = status.st_size if n_byte is None else min(n_byte, status.st_size)
        blocks = []
        # A read may return fewer bytes than asked for.
        while n_left > 0 and (block := os.read(handle, n_left)):
            blocks.append(block)
            n_left -= len(block)
        return blocks[0] if len(blocks) == 1 else b''.join(blocks)
    finally:
        os.close(handle)


def _open(path: str | os.PathLike, flags: int) -> tuple[int, os.stat_result]:
    try:
        # Without O_NONBLOCK, a pipe without a writer would block here. It has no effect on regular
        # files.
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        # Sockets and devices without a driver cannot be opened at all.
        if e.errno in (errno.ENXIO, errno.ENODEV):
            raise _not_regular(path, os.stat(path).st_mode) from e
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path, status.st_mode)
    except BaseException:
        os.close(handle)
        raise
    return handle, status


def _not_regular(path: str | os.PathLike, mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = _KINDS.get(stat.S_IFMT(mode), 'a special file')
    return NotRegularFileError(errno.EINVAL, f'{kind}; expected a regular file', str(path))
