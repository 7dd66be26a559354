"""Compile every kernel of a training step for GPUs, with the installed CuPy.

This needs CuPy and NVRTC but no GPU and no driver. The tests with fake CuPy record their kernels.
CuPy then generates the source of each kernel, and NVRTC compiles it. The kernels with which
ChainerMN packs gradients for NCCL are compiled too::

    PYTHONPATH=tests/gpu/fake_cupy PFDET_FAKE_CUPY_RECORD=kernels.jsonl pytest -m gpu
    python tests/gpu/compile_kernels.py kernels.jsonl       # in an environment with CuPy
"""

import argparse
import importlib.util
import json
import re
import warnings
from pathlib import Path

import pfdet.compat  # noqa: F401
from pfdet.compat import cuda_libraries
from pfdet.compat.import_hook import FIXES

import numpy as np


def main() -> None:
    """Parse arguments and compile."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('kernels', type=Path, help='file recorded by the tests')
    parser.add_argument(
        '--arch',
        nargs='+',
        default=['70', '80', '90', '100'],
        help='compute capabilities; those unknown to NVRTC are skipped',
    )
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    cuda_libraries.preload()
    import cupy

    known = [str(n) for n in cupy.cuda.nvrtc.getSupportedArchs()]
    archs = [arch for arch in args.arch if arch in known]
    kernels = [json.loads(line) for line in args.kernels.read_text().splitlines()]
    kernels += nccl_kernels()
    for kind, name, *rest in kernels:
        for arch in archs:
            if kind == 'raw':
                compile_for(arch, rest[0], cupy_headers=False)
            elif kind == 'elementwise':
                compile_for(arch, elementwise_source(name, *rest), cupy_headers=True)
            else:
                raise SystemExit(f'error: {name}: cannot generate the source of a {kind} kernel')
    print(
        f'CuPy {cupy.__version__}, NVRTC {".".join(map(str, cupy.cuda.nvrtc.getVersion()))}: '
        f'{len(kernels)} kernels compiled for {", ".join(archs)}'
    )


def nccl_kernels() -> list[list]:
    """Read the kernels of the communicator ``pure_nccl`` from ChainerMN's source."""
    module = 'chainermn.communicators._memory_utility'
    # The source with the fixes of pfdet.compat. Importing the module would need MPI.
    root = Path(importlib.util.find_spec('chainermn').submodule_search_locations[0]).parent
    source = (root / (module.replace('.', '/') + '.py')).read_text()
    for fix in FIXES:
        if module in fix.modules and fix.needed():
            source = fix.repair(source)
    packing = re.findall(r"cuda\.raw\(r'''(.*?)''', '(\w+)'\)", source, re.DOTALL)
    if len(packing) != 2:
        raise SystemExit(f'error: expected two kernels in {module}, found {len(packing)}')
    return [
        *(['raw', name, code] for code, name in packing),
        *(
            ['elementwise', 'div_by_size', '', f'{dtype} x', 'x *= (1.0/8)', '', []]
            for dtype in ('float16', 'float32')
        ),
    ]


def elementwise_source(
    name: str, ins: str, outs: str, operation: str, preamble: str, types: list
) -> str:
    """Generate the CUDA C of an element-wise kernel with CuPy, for contiguous arrays."""
    import cupy
    from cupy._core import _carray, _kernel

    by_letter = {letter: np.dtype(char) for letter, char in types}
    params = (
        *_kernel._get_param_info(ins, True),
        *_kernel._get_param_info(outs, False),
        *_kernel._get_param_info('CIndexer _ind', False),
    )
    infos = []
    for p in params[:-1]:
        dtype = np.dtype(p.dtype) if p.dtype is not None else by_letter[p.ctype]
        infos.append(_kernel._ArgInfo(1, cupy.ndarray, dtype.type, 1, True, True))
    infos.append(_kernel._ArgInfo(2, _carray.Indexer, None, 1, True, True))
    # CuPy maps the type letters to C types.
    type_map = _kernel._TypeMap(tuple((k, t.type) for k, t in by_letter.items()))
    return _kernel._get_elementwise_kernel_code(
        tuple(infos), type_map, params, operation, name, preamble
    )


def compile_for(arch: str, source: str, cupy_headers: bool) -> None:
    """Compile a kernel as CuPy does on a device of this compute capability."""
    from cupy._core import core
    from cupy.cuda import compiler

    def only_compile(source, options=(), *args, **kwargs):
        # In CuPy 14 the options include the directories.
        folders = getattr(compiler, '_get_extra_include_dir_opts', tuple)()
        compiler.compile_using_nvrtc(source, (*options, '-ftz=true', *folders), arch)

    # CuPy would load the kernel onto the device and query its compute capability.
    compiler._compile_module_with_cache = only_compile
    compiler._get_arch_for_options_for_nvrtc = lambda arch: (f'-arch=sm_{arch}', 'cubin')
    core.compile_with_cache(source, prepend_cupy_headers=cupy_headers)


if __name__ == '__main__':
    main()
