"""Write a page about one training run. The same as ``pfdet report``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('report')
