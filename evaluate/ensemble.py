"""Combine the detections of several models. The same as ``pfdet ensemble``."""

from pfdet.cli.ensemble import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
