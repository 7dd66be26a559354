"""The weights with the best validation mAP of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from chainer import training

from pfdet.atomic_write import check_no_directory, remove_unfinished
from pfdet.errors import InputError
from pfdet.files.json_file import read_object, write_json
from pfdet.files.reading import reading
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.training import model_directory

if TYPE_CHECKING:
    from pfdet.training.evaluator import ValidationAP

_SCORE = 'the score of a best.npz'


class KeepBest(training.Extension):
    """Keep the weights with the highest validation mAP as ``best.npz``, the score as ``best.json``.

    The first rank runs it at each iteration. It writes after a validation with a higher mAP than
    all before. The score is that of ``score.json`` with the entry ``'iteration'``.

    Args:
        out (path): Output directory of the run.
        network (FasterRCNN): The network.
        validation (ValidationAP): Its validation.
        resume (bool): Whether the run may go on from a snapshot; ``best.npz`` of before then stays
            until there is a better one. Otherwise it is removed.

    Attributes:
        best (float): The highest mAP so far, or :obj:`None`.

    Raises:
        InputError: The score of a resumed run is damaged, or a file cannot be written.
    """

    # After the validation
    priority = training.PRIORITY_READER

    def __init__(
        self, out: Path, network: FasterRCNN, validation: 'ValidationAP', resume: bool = False
    ):
        self.weights = Path(out) / 'best.npz'
        self.score = Path(out) / 'best.json'
        self.network = network
        self.validation = validation
        self.best: float | None = None
        self._seen = validation.score
        check_no_directory(self.weights, self.score)
        remove_unfinished(out, self.weights.name, self.score.name)
        if not resume:
            self.score.unlink(missing_ok=True)
            self.weights.unlink(missing_ok=True)
        elif self.score.exists() and self.weights.exists():
            content = read_object(self.score, _SCORE)
            with reading(self.score, _SCORE):
                self.best = float(content['mAP'])
                if not 0 <= self.best <= 1:
                    raise InputError(f'{self.score}: mAP {self.best}; expected one from 0 to 1')

    def __call__(self, trainer) -> None:
        score = self.validation.score
        if score is None or score is self._seen:
            return
        self._seen = score
        if score['mAP'] is None or (self.best is not None and score['mAP'] <= self.best):
            return
        self.best = score['mAP']
        # A run that is killed between the two has weights that are better than their score.
        model_directory.write_weights(self.weights.parent, self.network, self.weights.name)
        write_json(self.score, {'iteration': trainer.updater.iteration, **score})
