"""Write detections as a Kaggle submission. The same as ``pfdet make-submission``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('make-submission')
