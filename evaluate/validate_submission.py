"""Check a Kaggle submission. The same as ``pfdet validate-submission``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('validate-submission')
