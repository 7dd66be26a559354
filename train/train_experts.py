"""Fine-tune a full model to expert models. The same as ``pfdet train-experts``."""

from pfdet.cli.train_experts import main
from pfdet.errors import run_command

if __name__ == '__main__':
    run_command(main)
