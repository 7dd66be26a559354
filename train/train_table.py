"""Train, predict and score all rows of a table of the papers. The same as ``pfdet train-table``."""

from pfdet.cli.train_table import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
