"""What Linux says of a process in ``/proc/PID/stat``."""


def stat_fields(pid: int | str) -> list[str]:
    """The fields behind the program's name: state, parent, and so on; see ``man 5 proc``.

    Args:
        pid (int or str): The process; ``'self'`` for this one.

    Returns:
        list of str: Empty if there is no such process, or no such file system. Field 3 of the
        manual, the state, is the first.
    """
    try:
        with open(f'/proc/{pid}/stat') as file:
            # Split after the program name, which may contain blanks and parentheses.
            return file.read().rpartition(')')[2].split()
    except OSError:
        return []
