"""Compare runs with the papers' tables. The same as ``pfdet compare-tables``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('compare-tables')
