"""Combine the detections of several models. The same as ``pfdet ensemble``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('ensemble')
