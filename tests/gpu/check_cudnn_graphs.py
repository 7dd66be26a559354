"""Ask cuDNN 9 itself about the graphs of ``pfdet.gpu``, on a machine with or without a GPU.

It needs the packages of cuDNN 9 and CUDA 13's NVRTC, not CuPy or Chainer::

    pip install nvidia-cudnn-frontend nvidia-cudnn-cu13 nvidia-cuda-nvrtc numpy
    python tests/gpu/check_cudnn_graphs.py

cuDNN can plan for a device that is not there, from a description; here an H100's. Where there is no
driver, a library of empty functions stands in for it, made by the C compiler. The script checks
that all convolutions of ``table1-baseline`` and their gradients have plans that can be built, in
float32 with and without TF32 and in float16, that batch normalization has plans, and that the
operations of ``cudnn_cases.REFUSED`` have none. Then it writes the names and arguments of the front
end to ``cudnn_names.json``. Nothing is computed.
"""

import ctypes
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

H100 = {
    'deviceName': 'NVIDIA H100 80GB HBM3',
    'deviceVer': 900,
    'driverVer': 13000,
    'cudaDeviceId': 0,
    'multiProcessorCount': 132,
    'maxGridSize': [2147483647, 65535, 65535],
    'maxBlockSize': [1024, 1024, 64],
    'maxThreadsPerBlock': 1024,
    'maxThreadsPerSM': 2048,
    'maxCtasPerSM': 32,
    'warpSize': 32,
    'regsPerBlock': 65536,
    'maxRegistersPerSM': 65536,
    'maxSharedMemoryPerBlock': 49152,
    'maxSharedMemoryPerBlockOptin': 232448,
    'reservedSharedMemoryPerBlock': 1024,
    'oversizedSharedMemoryPerBlock': 0,
    'totalGlobalMem': 85017493504,
    'l2CacheSize': 52428800,
    'memoryBusWidth': 5120,
    'smClockRateKHz': 1980000,
    'memClockRateKHz': 2619000,
    'pciDeviceId': 0,
    'isTccDriver': 0,
    'supportCoopLaunch': 1,
}
METHODS = (
    'tensor',
    'validate',
    'build_operation_graph',
    'create_execution_plans',
    'get_execution_plan_count',
    'deselect_numeric_notes',
    'build_plan_at_index',
    'get_workspace_size_plan_at_index',
    'execute_plan_at_index',
)
OPERATIONS = 'conv_fprop', 'conv_dgrad', 'conv_wgrad', 'batchnorm', 'batchnorm_backward'


def restart_with_empty_driver():
    """Start this script again with a stand-in of the driver, if there is no driver."""
    try:
        ctypes.CDLL('libcuda.so.1')
        return
    except OSError:
        if os.environ.get('PFDET_EMPTY_DRIVER'):
            raise
    import nvidia

    names = {'cuInit', 'cuDriverGetVersion', 'cuGetProcAddress', 'cuGetProcAddress_v2'}
    root = Path(next(iter(nvidia.__path__)))
    for library in sorted(root.glob('cudnn/lib/libcudnn_*')):
        if 'precompiled' not in library.name and 'heuristic' not in library.name:
            found = re.findall(rb'\0(cu[A-Z][A-Za-z0-9_]{3,60})(?=\0)', library.read_bytes())
            names |= {name.decode() for name in found}
    lines = [f'int {name}(void) {{ return 100; }}' for name in sorted(names)]
    lines = [
        line.replace('(void) { return 100', '(int *v) { *v = 13000; return 0')
        if 'DriverGetVersion' in line
        else line
        for line in lines
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'cuda.c')
        source.write_text('\n'.join(lines) + '\n')
        soname = '-Wl,-soname,libcuda.so.1'
        subprocess.run(
            ['cc', '-w', '-shared', '-fPIC', soname, '-o', f'{folder}/libcuda.so.1', str(source)],
            check=True,
        )
        paths = [folder, *map(str, root.glob('cu1*/lib')), os.environ.get('LD_LIBRARY_PATH', '')]
        environment = dict(
            os.environ, LD_LIBRARY_PATH=':'.join(filter(None, paths)), PFDET_EMPTY_DRIVER='1'
        )
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)


def n_buildable(cudnn, graphs, operation, device, limit=2):
    """Number of plans that can be built, at most ``limit``; and the number of plans."""
    graph = graphs.describe(cudnn, operation, device_property=device).graph
    built = 0
    for i in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(i)
            built += 1
        except cudnn.cudnnGraphNotSupportedError:
            continue
        if built == limit:
            break
    return built, graph.get_execution_plan_count()


def check_convolutions(cudnn, graphs, cases, device):
    """Count the operations of table1-baseline with a plan; return the number of failures."""
    stored = json.loads((HERE / 'convolutions.json').read_text())
    failures = 0
    for dtype, last, tensor_cores in (
        ('float32', False, False),
        ('float32', True, True),
        ('float16', True, False),
    ):
        n = 0
        for shape in cases.scaled(stored, 2, (13, 21)):
            for operation in cases.convolution_operations(
                *shape, dtype=dtype, last=last, tensor_cores=tensor_cores
            ):
                built, _ = n_buildable(cudnn, graphs, operation, device, 1)
                n += 1
                if not built:
                    failures += 1
                    print(f'NO PLAN: {operation}')
        what = 'TF32' if tensor_cores else dtype
        print(
            f'{what}, {"channels last" if last else "channels first"}: {n} operations', flush=True
        )
    return failures


def check_normalization(cudnn, graphs, cases, device):
    """Check that batch normalization has plans; without a driver they cannot be built."""
    failures = 0
    for dtype in ('float16', 'float32'):
        for x in ((2, 64, 208, 336), (2, 2048, 26, 42), (512, 1024, 1, 1)):
            for operation in cases.normalization_operations(x, dtype):
                try:
                    graph = graphs.describe(cudnn, operation, device_property=device).graph
                    found = graph.get_execution_plan_count()
                except cudnn.cudnnGraphNotSupportedError:
                    found = 0
                failures += not found
                print(f'{operation.kind} {dtype} {x}: {found} plans', flush=True)
    return failures


def check_binding(cudnn, graphs, cases, device):
    """Check that the arrays and numbers of an operation are all that a graph asks for."""
    failures = 0
    for operation in (
        *cases.convolution_operations((2, 8, 9, 11), (16, 4, 3, 3), 2, 1),
        *cases.normalization_operations((2, 64, 9, 11)),
    ):
        described = graphs.describe(cudnn, operation, device_property=device)
        given = sorted([*described.inputs, *described.outputs, *described.scalars])
        asked = described.graph._variant_pack_uids()
        failures += asked != given
        print(f'{operation.kind} asks for {len(asked)} of {len(given)} addresses')
    return failures


def check_refusals(cudnn, graphs, cases, device):
    """Check that cuDNN refuses what the stand-in refuses."""
    failures = 0
    for name, operation in cases.REFUSED.items():
        try:
            built, _ = n_buildable(cudnn, graphs, operation, device, 1)
        except (RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError) as e:
            print(f'refused: {name}: {type(e).__name__}')
            continue
        if built:
            failures += 1
            print(f'NOT REFUSED: {name}')
    return failures


def names(cudnn):
    """Names and arguments of the front end."""
    public = lambda owner: sorted(n for n in dir(owner) if not n.startswith('_'))  # noqa: E731
    arguments = {
        method: [p for p in inspect.signature(getattr(cudnn.pygraph, method)).parameters][1:]
        for method in METHODS
    }
    for operation in OPERATIONS:
        text = getattr(cudnn._pybind_module.backend_graph, operation).__doc__
        # Of two overloads, the second has the padding of each side.
        signature = [line for line in text.splitlines() if line.startswith(operation + '(')][-1]
        arguments[operation] = re.findall(r'[(,] (\w+): ', signature.replace('(self,', '( self,'))
    return {
        'version': cudnn.__version__,
        'library': cudnn.backend_version(),
        'cudnn': public(cudnn),
        'data_type': public(cudnn.data_type),
        'heur_mode': public(cudnn.heur_mode),
        'numerical_note': public(cudnn.numerical_note),
        'pygraph': public(cudnn.pygraph),
        'pygraph()': [p for p in inspect.signature(cudnn.pygraph.__init__).parameters][1:],
        'Tensor': public(cudnn.Tensor),
        'arguments': arguments,
    }


def main():
    """Check, then write the names."""
    restart_with_empty_driver()
    import cudnn
    import cudnn_cases as cases

    from pfdet.gpu import graphs

    device = cudnn.create_device_properties(json.dumps(H100))
    failures = check_refusals(cudnn, graphs, cases, device)
    failures += check_binding(cudnn, graphs, cases, device)
    failures += check_normalization(cudnn, graphs, cases, device)
    failures += check_convolutions(cudnn, graphs, cases, device)
    found = names(cudnn)
    lines = [f' {json.dumps(key)}: {json.dumps(value)}' for key, value in found.items()]
    (HERE / 'cudnn_names.json').write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    print(f'cuDNN {found["library"]}, front end {found["version"]}: {failures} failures')
    return int(failures > 0)


if __name__ == '__main__':
    sys.exit(main())
