"""``python -m pfdet`` is the command ``pfdet``."""

from pfdet.cli.main import console

if __name__ == '__main__':
    console()
