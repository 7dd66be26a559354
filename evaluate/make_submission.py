"""Write detections as a Kaggle submission. The same as ``pfdet make-submission``."""

from pfdet.cli.make_submission import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
