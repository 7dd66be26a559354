"""A recipe of your own: the quickstart's, with soft-balance sampling and fewer epochs.

python docs/examples/recipe.py --recipe my-recipe --train-index INDEX --out DIR
"""

from dataclasses import replace

from pfdet.cli.train import main
from pfdet.errors import run_command
from pfdet.recipes import RECIPES

MINE = replace(
    RECIPES['mini'],
    name='my-recipe',
    about='The quickstart with soft-balance sampling',
    sampler='soft_balance',
    soft_balance_lambda=0.7,
    epochs=4.0,
)
RECIPES[MINE.name] = MINE

if __name__ == '__main__':
    run_command(main)
