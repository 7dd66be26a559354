"""The parts of the GPU benchmark that run without a GPU."""

import subprocess
import sys
from pathlib import Path

import chainer
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.openimages.index import AnnotationIndex
from pfdet.targets import rules, sampling
from pfdet.training import train_chain

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))
import gpu_sections  # noqa: E402
import gpu_step  # noqa: E402


class Ticks:
    """A clock that advances by one second per stamp."""

    def __init__(self):
        self.now = 0

    def stamp(self):
        self.now += 1
        return self.now

    def seconds(self, start, end):
        return end - start

    def wait(self):
        pass


def test_time_is_assigned_to_the_current_section():
    sections = gpu_sections.Sections(Ticks())
    sections.switch('other')  # 1
    with sections.inside('backbone'):  # 2
        with sections.inside('backbone'):  # no change
            pass
        with sections.inside('targets'):  # 3
            pass
        #                                         4: backbone again
    #                                             5: other
    found = sections.seconds()  # 6
    assert found['other'] == 2 and found['backbone'] == 2 and found['targets'] == 1
    assert sum(found.values()) == 5
    assert sum(sections.seconds().values()) == 0


def test_backward_has_the_section_of_forward():
    sections = gpu_sections.Sections(Ticks())
    x = chainer.Variable(np.ones(3, np.float32))
    with sections:
        with sections.inside('backbone'):
            h = chainer.functions.exp(x)
        with sections.inside('head'):
            y = chainer.functions.sum(h)
        sections.seconds()
        y.backward()
    assert [section for section, _ in sections._stamps][-2:] == ['head', 'backbone']


def test_sections_of_a_step_sum_to_one(small_world):
    before = [sampling.sample_rois, rules.positives, train_chain.rpn_loss]
    index = AnnotationIndex.open(small_world / 'train.index')
    found = gpu_step.our_speed('mini', [], index, 2, 1, gpu_sections.HostClock(), (64, 96), -1)
    assert sum(found['share'].values()) == pytest.approx(1)
    for section in 'data', 'backbone', 'RPN', 'targets', 'head', 'all-reduce', 'update':
        assert found['share'][section] > 0, section
    assert found['share']['backbone'] > 2 * found['share']['other']
    assert found['train'] > 0 and found['test'] > 0
    assert before == [sampling.sample_rois, rules.positives, train_chain.rpn_loss]


@pytest.mark.skipif(cuda.available, reason='there is a GPU')
def test_without_a_gpu_the_error_is_one_line():
    result = subprocess.run(
        [sys.executable, 'benchmarks/gpu_step.py'], cwd=ROOT, text=True, capture_output=True
    )
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.startswith('error: there is no GPU') and result.stderr.count('\n') == 1
