"""Detect objects in photographs and draw them. The same as ``pfdet detect``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('detect')
