"""The challenge's metric on the validation set while training."""

from collections.abc import Callable

from chainer import training

from pfdet.evaluation.average_precision import average_precision, score_dict
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import ground_truth_of_index
from pfdet.inference.predict import concatenate
from pfdet.openimages.index import AnnotationIndex


def evaluate(predict: Callable[[range], Detections], index: AnnotationIndex, comm) -> dict | None:
    """Predict a validation set on all ranks and score it on the first.

    Args:
        predict (callable): From images of the index to their detections.
        index (AnnotationIndex): The validation set.
        comm (ChainerMN communicator): Rank r predicts every n-th image from the r-th on.

    Returns:
        dict: What :func:`pfdet.evaluation.average_precision.average_precision` returns, with the
        ``'detections'``, on the first rank; :obj:`None` on the others.
    """
    part = predict(range(comm.rank, len(index), comm.size))
    parts = comm.gather_obj(part)
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
        score (dict): The last result as
            :func:`~pfdet.evaluation.average_precision.score_dict` gives it, on the first rank.
    """

    priority = training.PRIORITY_WRITER

    def __init__(self, predict: Callable[[range], Detections], index: AnnotationIndex, comm):
        self.predict = predict
        self.index = index
        self.comm = comm
        self.score = None

    def __call__(self, trainer) -> None:
        result = evaluate(self.predict, self.index, self.comm)
        if result is not None:
            self.score = score_dict(result, self.index.classes, self.index.hierarchy)
            trainer.observation['validation/mAP'] = self.score['mAP']
