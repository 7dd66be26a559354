"""Train, predict and score all rows of a table of the papers. The same as ``pfdet train-table``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('train-table')
