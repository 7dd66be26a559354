"""Fine-tune a full model to expert models. The same as ``pfdet train-experts``."""

from pfdet.cli.main import run_script

if __name__ == '__main__':
    run_script('train-experts')
