"""Large text files in blocks of whole lines."""

from collections.abc import Callable, Iterator

#: A longer line is no line of a table.
LONGEST_LINE = 1 << 26


def whole_lines(read: Callable[[], bytes], too_long: Callable[[], Exception]) -> Iterator[bytes]:
    """Cut a file at line ends: LF, CRLF or CR.

    Args:
        read (callable): Takes no argument, returns the next bytes, none at the end of the file.
        too_long (callable): Takes no argument, returns the exception to raise at a line that is
            longer than :data:`LONGEST_LINE`.

    Yields:
        bytes: Blocks of whole lines. The last one may lack its line end.
    """
    rest = b''
    while chunk := read():
        # A carriage return at the end of the chunk may be the first half of a line end.
        end = 1 + max(chunk.rfind(b'\n'), chunk.rfind(b'\r', 0, -1))
        if not end:
            rest += chunk
            if len(rest) > LONGEST_LINE:
                raise too_long()
            continue
        block, rest = rest + chunk[:end], chunk[end:]
        yield block
    if rest:
        yield rest
