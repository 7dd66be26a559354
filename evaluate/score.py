"""Score detections as the Open Images Challenge 2018 does. The same as ``pfdet score``."""

from pfdet.cli.score import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
