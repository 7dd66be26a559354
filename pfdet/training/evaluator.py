"""The challenge's metric on the validation set during training."""

from collections.abc import Callable

from chainer import training

from pfdet import progress
from pfdet.evaluation.average_precision import average_precision, score_dict
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import ground_truth_of_index
from pfdet.inference.predict import concatenate
from pfdet.openimages.index import AnnotationIndex


def evaluate(predict: Callable[[range], Detections], index: AnnotationIndex, comm) -> dict | None:
    """Predict a validation set on all ranks and score it on the first rank.

    Args:
        predict (callable): Takes image positions of the index, returns their detections.
        index (AnnotationIndex): The validation set.
        comm (ChainerMN communicator): The ranks. Of ``n`` ranks, rank ``r`` predicts images
            ``r``, ``r + n``, ``r + 2n``, and so on.

    Returns:
        dict: On the first rank, the result of
        :func:`pfdet.evaluation.average_precision.average_precision` and the ``'detections'``;
        :obj:`None` on the others.
    """
    local = predict(range(comm.rank, len(index), comm.size))
    parts = comm.gather_obj(local)
    if comm.rank != 0:
        return None
    detections = concatenate(parts)
    result = average_precision(detections, ground_truth_of_index(index), len(index.classes))
    return {**result, 'detections': detections}


class ValidationAP(training.Extension):
    """Report the mean average precision of the validation set as ``validation/mAP``.

    Args:
        predict, index, comm: See :func:`evaluate`.

    Attributes:
        score (dict): On the first rank, the last result in the form of
            :func:`~pfdet.evaluation.average_precision.score_dict`.
    """

    priority = training.PRIORITY_WRITER

    def __init__(self, predict: Callable[[range], Detections], index: AnnotationIndex, comm):
        self.predict = predict
        self.index = index
        self.comm = comm
        self.score = None

    def __call__(self, trainer) -> None:
        with progress.phase(f'validation after iteration {trainer.updater.iteration}'):
            result = evaluate(self.predict, self.index, self.comm)
        if result is not None:
            self.score = score_dict(result, self.index.classes, self.index.hierarchy)
            trainer.observation['validation/mAP'] = self.score['mAP']
