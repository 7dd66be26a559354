"""cuDNN 9 through its front end, without a GPU: on a stand-in, and by the names of the real one."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import convolution_shapes
import cudnn_cases
import pytest
from chainer.backends import cuda

import pfdet.gpu

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = json.loads((HERE / 'cudnn_names.json').read_text())
FAKES = os.pathsep.join([str(HERE / 'fake_cudnn'), str(HERE / 'fake_cupy'), str(ROOT)])

PYTEST = '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider'

needs_compiler = pytest.mark.skipif(
    not shutil.which('g++') and not shutil.which('clang++'),
    reason='no C++ compiler to compile kernels with',
)


def run(*command, **variables):
    path = os.pathsep.join([FAKES, str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])])
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=path, **threads, **variables),
        text=True,
        capture_output=True,
        timeout=600,
    )


@pytest.mark.skipif(cuda.available, reason='the tests run on the GPU itself')
@needs_compiler
def test_the_gpu_tests_of_cudnn_pass_with_the_stand_in():
    result = run(*PYTEST, 'tests/gpu/test_cudnn_on_the_gpu.py')
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert int(re.search(r'(\d+) passed', result.stdout).group(1)) >= 90
    assert 'skipped' not in result.stdout


@pytest.mark.skipif(cuda.available, reason='needs fake CuPy')
@needs_compiler
@pytest.mark.parametrize('tf32', [False, True])
def test_networks_and_steps_are_those_of_the_cpu_with_the_stand_in(tf32):
    files = [f'tests/gpu/test_{name}_on_the_gpu.py' for name in ('links', 'training')]
    some = 'backbones and mini or pyramids or float32'
    result = run(*PYTEST, *files, '-k', some, *['-p', 'allow_tf32'] * tf32)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert int(re.search(r'(\d+) passed', result.stdout).group(1)) >= 10
    assert 'skipped' not in result.stdout


REPORT = """
import pfdet.compat
from pfdet.compat.__main__ import report
print(report())
"""


@pytest.mark.skipif(cuda.available, reason='needs fake CuPy')
@needs_compiler
def test_the_report_says_whether_cudnn_9_is_used():
    line = r'^cuDNN 9 +(.*)$'
    on = run('-c', REPORT)
    assert on.returncode == 0, on.stderr
    assert re.search(line, on.stdout, re.M)[1] == '9.28.1, front end 1.32.0'
    assert 'the GPU, cuDNN 9 for convolutions' in on.stdout
    off = run('-c', REPORT, PFDET_CUDNN='0')
    assert 'switched off by PFDET_CUDNN=0' in re.search(line, off.stdout, re.M)[1]
    assert 'im2col and cuBLAS' in off.stdout


PROGRAM = """
import sys
import cudnn
import cudnn_cases as cases
from pfdet.gpu.graphs import describe

handle = cudnn.create_handle()
cudnn.set_stream(handle, 0)
for name, operation in cases.REFUSED.items():
    try:
        describe(cudnn, operation, handle=handle)
    except (RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError):
        continue
    print('not refused:', name)
for operation in (
    *cases.convolution_operations((2, 8, 9, 11), (16, 4, 3, 3), 2, 1),
    *cases.normalization_operations((2, 64, 9, 11)),
):
    describe(cudnn, operation, handle=handle)
"""


def test_the_stand_in_refuses_what_cudnn_refuses():
    assert len(cudnn_cases.REFUSED) > 10
    result = run('-c', PROGRAM)
    assert result.returncode == 0 and result.stdout == '', result.stdout + result.stderr


def test_the_stored_convolutions_are_those_of_the_baseline():
    assert convolution_shapes.convolutions() == convolution_shapes.read()


def sources():
    folder = Path(pfdet.gpu.__file__).parent
    return {path.name: ast.parse(path.read_text()) for path in sorted(folder.glob('*.py'))}


def test_pfdet_uses_names_and_arguments_that_the_front_end_has():
    owners = {
        'cudnn': 'cudnn',
        'self.cudnn': 'cudnn',
        'cudnn.data_type': 'data_type',
        'cudnn.heur_mode': 'heur_mode',
        'notes': 'numerical_note',
        'graph': 'pygraph',
        'tensor': 'Tensor',
        't': 'Tensor',
    }
    own = {'front_end', 'handle', 'find', '__version__'}
    used = set()
    for name, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            owner = owners.get(ast.unparse(node.value))
            if owner is None or (owner == 'cudnn' and node.attr in own):
                continue
            used.add((owner, node.attr))
            assert node.attr in NAMES[owner], f'{name}: {ast.unparse(node)}'
    assert {
        ('pygraph', 'conv_dgrad'),
        ('pygraph', 'execute_plan_at_index'),
        ('heur_mode', 'FALLBACK'),
        ('numerical_note', 'TENSOR_CORE'),
        ('cudnn', 'set_stream'),
        ('Tensor', 'set_stride'),
    } <= used
    for value in pfdet.gpu.graphs.DATA_TYPES.values():
        assert value in NAMES['data_type']


def test_pfdet_passes_arguments_that_the_front_end_has():
    calls = 0
    for name, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) == 'graph':
                known = NAMES['arguments'].get(node.func.attr)
            elif ast.unparse(node.func) == 'cudnn.pygraph':
                known = NAMES['pygraph()']
            else:
                continue
            assert known is not None, f'{name}: {ast.unparse(node.func)}'
            calls += 1
            given = {keyword.arg for keyword in node.keywords} - {None}
            assert given <= set(known), f'{name}: {ast.unparse(node)}'
    assert calls >= 14
