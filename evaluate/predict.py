"""Detect the objects of an index's images with a trained model. The same as ``pfdet predict``."""

from pfdet.cli.predict import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
