"""``python -m pfdet.export`` is ``pfdet export``."""

from pfdet.cli.export import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
