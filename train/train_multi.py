"""Train a recipe of either paper, on any number of ranks. The same as ``pfdet train``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('train')
