"""A classification loss of your own: the squared error of the sigmoids.

python docs/examples/loss.py --recipe mini --set loss=brier --train-index INDEX --out DIR
"""

from pfdet.cli.train import main
from pfdet.errors import run_command
from pfdet.functions.closed_form import closed_form_loss
from pfdet.functions.losses import LOSSES, LossForm
from pfdet.functions.sigmoid import sigmoid_score


def brier_loss(x, t, normalize='roi', weight=None):
    """Squared error of the probabilities.

    Args:
        x (variable): Logits :math:`(R, C)`.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        normalize (str): See :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Class weights :math:`(C,)`, or :obj:`None`.
    """
    return closed_form_loss(x, t, _brier, normalize, weight)


def _brier(x, t, weight):
    """The sum of the loss over some rows, and its gradient."""
    p = sigmoid_score(x)
    error = (p - (t > 0)) * (t >= 0)
    scale = 1 if weight is None else weight
    return (scale * error**2).sum(), scale * 2 * error * p * (1 - p)


LOSSES['brier'] = LossForm(brier_loss, background=False, score='sigmoid')

if __name__ == '__main__':
    run_command(main)
