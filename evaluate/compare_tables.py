"""Compare runs with the papers' tables. The same as ``pfdet compare-tables``."""

from pfdet.cli.compare_tables import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
