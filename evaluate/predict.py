"""Detect the objects of an index's images with a trained model. The same as ``pfdet predict``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('predict')
