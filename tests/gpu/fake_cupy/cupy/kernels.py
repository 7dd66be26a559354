"""CUDA kernels on the CPU, compiled by a C++ compiler.

Elementwise and reduction kernels become loops over their elements. The blocks of a raw kernel run
sequentially. The threads of a block run as CPU threads, so that ``__syncthreads`` and shared memory
work. Without a compiler, a kernel raises :class:`~cupy.compiler.NoCompilerError`.
"""

import ctypes
import re

import numpy as np

from cupy.array import HostConversionError, ndarray, wrap
from cupy.compiler import compile_library, record

_C_NAMES = {
    'b': 'signed char',
    'B': 'unsigned char',
    'h': 'short',
    'H': 'unsigned short',
    'i': 'int',
    'I': 'unsigned int',
    'l': 'long long',
    'L': 'unsigned long long',
    'q': 'long long',
    'Q': 'unsigned long long',
    # Not in all C++ compilers: GCC 12 and Clang 15 have it.
    'e': '_Float16',
    'f': 'float',
    'd': 'double',
    '?': 'bool',
}

_HEADER = r"""
#include <cmath>
#include <cstddef>
#include <cstdint>
#define __device__
#define __forceinline__ inline
#define __restrict__
#ifndef THREADS
using std::isnan; using std::isinf; using std::isfinite;
typedef signed char int8; typedef unsigned char uint8; typedef short int16;
typedef unsigned short uint16; typedef int int32; typedef unsigned int uint32;
typedef long long int64; typedef unsigned long long uint64; typedef float float32;
typedef double float64;
template <class A, class B> auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }
template <class A, class B> auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }
template <class A, class B> A atomicAdd(A* p, B v) { A old = *p; *p += v; return old; }
template <class A> A rsqrt(A a) { return 1 / std::sqrt(a); }
template <class A> struct CArray {
    A* data; ptrdiff_t n;
    A& operator[](ptrdiff_t i) const { return data[i]; }
    ptrdiff_t size() const { return n; }
};
struct Indexer { ptrdiff_t n; ptrdiff_t size() const { return n; } };
#endif
"""

_THREADS = r"""
#include <pthread.h>
#include <thread>
#include <vector>
#define __global__
#define __shared__ static
struct dim3 { unsigned x, y, z; };
static thread_local dim3 threadIdx;
static dim3 blockIdx, blockDim, gridDim;
static pthread_barrier_t barrier;
static void __syncthreads() { pthread_barrier_wait(&barrier); }
"""


class _Param:
    """A parameter of an elementwise or reduction kernel, such as ``'raw T x'``."""

    def __init__(self, text: str):
        words = text.split()
        self.raw = 'raw' in words
        self.type, self.name = [w for w in words if w not in ('raw', 'const', '_non_const')]
        # A single letter is a type variable.
        self.dtype = np.dtype(self.type) if len(self.type) > 1 else None


def _params(text: str) -> list[_Param]:
    return [_Param(part) for part in text.split(',') if part.strip()]


def _resolve(params: list[_Param], args: list, types: dict[str, np.dtype]) -> None:
    for scalars in False, True:
        for p, a in zip(params, args):
            is_array = isinstance(a, ndarray)
            if p.dtype is None and is_array != scalars:
                dtype = a.dtype if is_array else np.asarray(a).dtype
                if is_array and types.setdefault(p.type, dtype) != dtype:
                    raise TypeError(f'{p.type} is {types[p.type]}, but {p.name} is {dtype}')
                types.setdefault(p.type, dtype)
            elif p.dtype is not None and is_array and a.dtype != p.dtype:
                raise TypeError(f'{p.name} is {a.dtype}, expected {p.dtype}')


class _Kernel:
    def __init__(self, in_params: str, out_params: str, name: str, preamble: str):
        self.ins, self.outs = _params(in_params), _params(out_params)
        self.in_text, self.out_text = in_params, out_params
        self.name = name
        self.preamble = preamble

    def split(self, args: tuple) -> tuple[list, list]:
        """Split into inputs and outputs and check their types; missing outputs are :obj:`None`."""
        n = len(self.ins)
        if len(args) not in (n, n + len(self.outs)):
            raise TypeError(f'{self.name} takes {n} or {n + len(self.outs)} arrays')
        for a in args:
            if isinstance(a, np.ndarray) or not isinstance(a, ndarray | int | float | np.generic):
                raise HostConversionError(f'{self.name}: an argument of type {type(a).__name__}')
        return list(args[:n]), list(args[n:]) or [None] * len(self.outs)

    def declarations(self, types: dict[str, np.dtype]) -> str:
        """Return the typedefs of the type variables."""
        return '\n'.join(f'typedef {_C_NAMES[t.char]} {name};' for name, t in types.items())

    def dtype_of(self, param: _Param, types: dict[str, np.dtype]) -> np.dtype:
        """Return the dtype of a parameter with resolved type variables."""
        if param.dtype is not None:
            return param.dtype
        if param.type not in types:
            raise TypeError(f'{self.name}: cannot infer the type {param.type}')
        return types[param.type]


class ElementwiseKernel(_Kernel):
    """A loop over the elements of broadcast arrays."""

    def __init__(
        self,
        in_params,
        out_params,
        operation,
        name='kernel',
        reduce_dims=True,
        preamble='',
        no_return=False,
        return_tuple=False,
        loop_prep='',
        after_loop='',
        options=(),
    ):
        super().__init__(in_params, out_params, name, preamble)
        self.operation = operation
        self.loop_prep = loop_prep
        self.return_tuple = return_tuple

    def __call__(self, *args, size=None, stream=None, block_size=128):
        ins, outs = self.split(args)
        types: dict[str, np.dtype] = {}
        _resolve([*self.ins, *self.outs], [*ins, *outs], types)
        in_arrays = [
            np.asarray(a._a if isinstance(a, ndarray) else a, self.dtype_of(p, types))
            for p, a in zip(self.ins, ins)
        ]
        if size is None:
            shape = np.broadcast_shapes(
                *[a.shape for p, a in zip(self.ins, in_arrays) if not p.raw],
                *[a.shape for p, a in zip(self.outs, outs) if a is not None and not p.raw],
            )
        else:
            shape = (size,)
        out_arrays = [
            np.empty(shape, self.dtype_of(p, types)) if a is None else a._a
            for p, a in zip(self.outs, outs)
        ]
        # The kernel gets contiguous arrays. Outputs are copied back.
        contiguous = [
            np.ascontiguousarray(a if p.raw else np.broadcast_to(a, shape))
            for p, a in zip([*self.ins, *self.outs], [*in_arrays, *out_arrays])
        ]
        n = int(np.prod(shape, dtype=np.int64))
        record(
            'elementwise',
            self.name,
            self.in_text,
            self.out_text,
            self.operation,
            self.preamble,
            tuple((k, t.char) for k, t in types.items()),
        )
        if n:
            function = compile_library(self.source(types)).run
            function(
                ctypes.c_ssize_t(n),
                *(ctypes.c_void_p(a.ctypes.data) for a in contiguous),
                *(ctypes.c_ssize_t(a.size) for a in contiguous),
            )
        for a, b in zip(out_arrays, contiguous[len(ins) :]):
            if a is not b:
                a[...] = b.reshape(a.shape)
        results = tuple(wrap(a) if o is None else o for a, o in zip(out_arrays, outs))
        return results if len(results) != 1 or self.return_tuple else results[0]

    def source(self, types: dict[str, np.dtype]) -> str:
        """Generate the loop in C++."""
        params = [*self.ins, *self.outs]
        c = [_C_NAMES[self.dtype_of(p, types).char] for p in params]
        arguments = ', '.join(
            [
                *(f'{t}* _{p.name}' for t, p in zip(c, params)),
                *(f'ptrdiff_t _n_{p.name}' for p in params),
            ]
        )
        raw = '\n'.join(
            f'CArray<{t}> {p.name} = {{_{p.name}, _n_{p.name}}};'
            for t, p in zip(c, params)
            if p.raw
        )
        own = '\n'.join(
            f'{"const " * (p in self.ins)}{t}{"" if p in self.ins else "&"} {p.name} = '
            f'_{p.name}[i];'
            for t, p in zip(c, params)
            if not p.raw
        )
        return (
            f'{_HEADER}\n{self.declarations(types)}\n{self.preamble}\n'
            f'extern "C" void run(ptrdiff_t _n, {arguments}) {{\n'
            f'Indexer _ind = {{_n}};\n{raw}\n{self.loop_prep};\n'
            f'for (ptrdiff_t i = 0; i < _n; ++i) {{\n{own}\n{self.operation};\n}}\n}}\n'
        )


class ReductionKernel(_Kernel):
    """A reduction of broadcast arrays over some of their axes."""

    def __init__(
        self,
        in_params,
        out_params,
        map_expr,
        reduce_expr,
        post_map_expr,
        identity,
        name='reduce_kernel',
        reduce_type=None,
        reduce_dims=True,
        preamble='',
        options=(),
    ):
        super().__init__(in_params, out_params, name, preamble)
        self.expressions = map_expr, reduce_expr, post_map_expr
        self.identity = identity
        self.reduce_type = reduce_type

    def __call__(self, *args, out=None, axis=None, keepdims=False, stream=None):
        ins, _ = self.split(args)
        if any(p.raw for p in self.ins):
            raise NotImplementedError('raw parameters of a reduction')
        types: dict[str, np.dtype] = {}
        _resolve(self.ins, ins, types)
        arrays = np.broadcast_arrays(
            *(
                np.asarray(a._a if isinstance(a, ndarray) else a, self.dtype_of(p, types))
                for p, a in zip(self.ins, ins)
            )
        )
        ndim = arrays[0].ndim
        axes = (
            range(ndim)
            if axis is None
            else [a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
        )
        kept = [a for a in range(ndim) if a not in axes]
        shape = tuple(arrays[0].shape[a] for a in kept)
        n_in = int(np.prod([arrays[0].shape[a] for a in axes], dtype=np.int64))
        contiguous = [np.ascontiguousarray(a.transpose(*kept, *axes)) for a in arrays]
        result = np.empty(shape, self.dtype_of(self.outs[0], types))
        record(
            'reduction',
            self.name,
            self.in_text,
            self.out_text,
            self.expressions,
            self.preamble,
            tuple((k, t.char) for k, t in types.items()),
        )
        if result.size:
            compile_library(self.source(types)).run(
                ctypes.c_ssize_t(result.size),
                ctypes.c_ssize_t(n_in),
                *(ctypes.c_void_p(a.ctypes.data) for a in (*contiguous, result)),
            )
        if keepdims:
            result = np.expand_dims(result, tuple(axes))
        return wrap(result)

    def source(self, types: dict[str, np.dtype]) -> str:
        """Generate the two loops in C++."""
        map_, reduce_, post = self.expressions
        out = self.outs[0]
        c = [_C_NAMES[self.dtype_of(p, types).char] for p in self.ins]
        c_out = _C_NAMES[self.dtype_of(out, types).char]
        middle = self.reduce_type or c_out
        arguments = ', '.join(f'{t}* _{p.name}' for t, p in zip(c, self.ins))
        own = ' '.join(
            f'const {t} {p.name} = _{p.name}[_o * _n_in + i];' for t, p in zip(c, self.ins)
        )
        return (
            f'{_HEADER}\n{self.declarations(types)}\n{self.preamble}\n'
            f'extern "C" void run(ptrdiff_t _n, ptrdiff_t _n_in, {arguments}, '
            f'{c_out}* _out) {{\n'
            'for (ptrdiff_t _o = 0; _o < _n; ++_o) {\n'
            f'{middle} a = {self.identity};\n'
            f'for (ptrdiff_t i = 0; i < _n_in; ++i) {{ {own}\n{middle} b = {map_};\n'
            f'a = {reduce_}; }}\n{c_out}& {out.name} = _out[_o];\n{post};\n}}\n}}\n'
        )


class RawKernel:
    """A kernel in CUDA C with blocks of threads."""

    def __init__(
        self,
        code,
        name,
        options=(),
        backend='nvrtc',
        *,
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        jitify=False,
    ):
        self.code = code
        self.name = name

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        parameters = re.search(rf'\b{self.name}\s*\(([^)]*)\)\s*{{', self.code).group(1).split(',')
        types = [
            p.strip().rsplit(None, 1)[0] if '*' not in p else p[: p.rindex('*') + 1]
            for p in parameters
        ]
        record('raw', self.name, self.code)
        if len(args) != len(types):
            raise TypeError(f'{self.name} takes {len(types)} arguments, given {len(args)}')
        values = []
        for t, a in zip(types, args):
            if isinstance(a, ndarray):
                if '*' not in t or not a._a.flags.c_contiguous:
                    raise TypeError(f'{self.name}: {t} is given {a!r}')
                values.append(ctypes.c_void_p(a._a.ctypes.data))
            elif isinstance(a, np.generic):
                values.append(np.ctypeslib.as_ctypes_type(a.dtype)(a.item()))
            elif isinstance(a, int):
                # As in CuPy: eight bytes, of which the kernel reads as many as it declares.
                values.append(ctypes.c_longlong(a))
            else:
                raise HostConversionError(f'{self.name}: an argument of type {type(a).__name__}')
        pointers = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values)
        )
        sizes = [int(n) for d in (grid, block) for n in (*d, 1, 1, 1)[:3]]
        compile_library(self.source(types), '-pthread').run(
            pointers, *(ctypes.c_uint(n) for n in sizes)
        )

    def source(self, types: list[str]) -> str:
        """Generate the kernel and the loops over its blocks and threads."""
        arguments = ', '.join(f'*({t}*)a[{k}]' for k, t in enumerate(types))
        return f"""{_HEADER.replace('#ifndef THREADS', '#if 1')}
{_THREADS}
{re.sub(r'#include *<cupy/[^>]*>', '', self.code)}
extern "C" void run(void** a, unsigned gx, unsigned gy, unsigned gz,
                    unsigned bx, unsigned by, unsigned bz) {{
    gridDim = {{gx, gy, gz}}; blockDim = {{bx, by, bz}};
    unsigned n = bx * by * bz;
    pthread_barrier_init(&barrier, nullptr, n);
    for (unsigned z = 0; z < gz; ++z) for (unsigned y = 0; y < gy; ++y)
    for (unsigned x = 0; x < gx; ++x) {{
        blockIdx = {{x, y, z}};
        auto work = [=](unsigned t) {{
            threadIdx = {{t % bx, t / bx % by, t / bx / by}};
            {self.name}({arguments});
        }};
        if (!{int('__syncthreads' in self.code)}) {{
            for (unsigned t = 0; t < n; ++t) work(t);
            continue;
        }}
        std::vector<std::thread> threads;
        for (unsigned t = 0; t < n; ++t) threads.emplace_back(work, t);
        for (auto& t : threads) t.join();
    }}
    pthread_barrier_destroy(&barrier);
}}
"""
