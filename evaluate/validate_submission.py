"""Check a Kaggle submission. The same as ``pfdet validate-submission``."""

from pfdet.cli.validate_submission import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
