"""Train a recipe of either paper, on any number of ranks. The same as ``pfdet train``."""

from pfdet.cli.train import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
