"""Score detections as the Open Images Challenge 2018 does. The same as ``pfdet score``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('score')
