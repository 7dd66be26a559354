"""CUDA kernels for batched greedy non-maximum suppression, without host synchronization.

The first kernel compares all pairs of boxes of a list. It writes a bit mask for each box with one
bit per later box. The second kernel processes the boxes in order, with one block per list.
ChainerCV runs this second step on the CPU, which costs a synchronization and a copy for each list.
"""

from chainer.backends import cuda

from pfdet.boxes.arrays import Array

# Boxes per word of a bit mask, and threads per block of the first kernel.
_WORD = 64
# The second kernel keeps this many words per list in shared memory: 65,536 boxes.
_MAX_WORDS = 1024

_OVERLAPS = r"""
extern "C" __global__
void overlaps(const float* bbox, unsigned long long* over, int n_box, int n_word, float thresh) {
    // Block (x, y, z) compares the boxes of word y with those of word x in list z.
    if (blockIdx.x < blockIdx.y) return;
    long long list = blockIdx.z;
    int i = blockIdx.y * 64 + threadIdx.x;
    if (i >= n_box) return;
    const float* a = bbox + (list * n_box + i) * 4;
    float area = (a[2] - a[0]) * (a[3] - a[1]);
    unsigned long long bits = 0;
    int first = blockIdx.x * 64;
    for (int k = 0; k < 64; ++k) {
        int j = first + k;
        if (j <= i || j >= n_box) continue;
        const float* b = bbox + (list * n_box + j) * 4;
        float height = fminf(a[2], b[2]) - fmaxf(a[0], b[0]);
        float width = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
        float inter = fmaxf(height, 0.f) * fmaxf(width, 0.f);
        float both = area + (b[2] - b[0]) * (b[3] - b[1]) - inter;
        if (inter > 0.f && inter >= both * thresh) bits |= 1ULL << k;
    }
    over[(list * n_box + i) * n_word + blockIdx.x] = bits;
}
"""

_CHOOSE = r"""
extern "C" __global__
void choose(const bool* valid, const unsigned long long* over, bool* keep, int n_box, int n_word) {
    // One block per list. A bit of out is set once its box is known to be suppressed.
    __shared__ unsigned long long out[1024];
    long long list = blockIdx.x;
    for (int w = threadIdx.x; w < n_word; w += blockDim.x) {
        unsigned long long bits = 0;
        for (int k = 0; k < 64; ++k) {
            int j = w * 64 + k;
            if (j >= n_box || !valid[list * n_box + j]) bits |= 1ULL << k;
        }
        out[w] = bits;
    }
    __syncthreads();
    for (int i = 0; i < n_box; ++i) {
        // All threads read the same bit, so either all or none reach __syncthreads.
        bool out_already = (out[i / 64] >> (i % 64)) & 1ULL;
        if (out_already) continue;
        __syncthreads();
        const unsigned long long* row = over + (list * n_box + i) * n_word;
        for (int w = i / 64 + threadIdx.x; w < n_word; w += blockDim.x) out[w] |= row[w];
        __syncthreads();
    }
    for (int j = threadIdx.x; j < n_box; j += blockDim.x)
        keep[list * n_box + j] = !((out[j / 64] >> (j % 64)) & 1ULL);
}
"""


def suppress_on_gpu(bbox: Array, valid: Array, thresh: float) -> Array:
    """:func:`~pfdet.boxes.proposal_nms.suppress_sorted` for CuPy arrays.

    Args:
        bbox (array): Boxes :math:`(G, K, 4)`, converted to float32.
        valid (bool array): :math:`(G, K)`.
        thresh (float): Smallest IoU that suppresses.

    Returns:
        bool array: Mask of the kept boxes, :math:`(G, K)`.

    Raises:
        ValueError: A list has more than 65,536 boxes.
    """
    cupy = cuda.cupy
    G, K = valid.shape
    n_word = -(-K // _WORD)
    if n_word > _MAX_WORDS:
        raise ValueError(f'{K} boxes in a list; expected at most {_MAX_WORDS * _WORD}')
    bbox = cupy.ascontiguousarray(bbox, dtype='float32')
    valid = cupy.ascontiguousarray(valid)
    keep = cupy.empty((G, K), dtype=bool)
    if keep.size == 0:
        return keep
    # Words below the diagonal are neither written nor read.
    over = cupy.empty((G, K, n_word), dtype='uint64')
    n = cupy.int32(K), cupy.int32(n_word)
    cuda.raw(_OVERLAPS, 'overlaps')(
        (n_word, n_word, G), (_WORD,), (bbox, over, *n, cupy.float32(thresh))
    )
    # One warp per list: its threads run in lockstep. Up to 2048 boxes are one word per thread.
    cuda.raw(_CHOOSE, 'choose')((G,), (32,), (valid, over, keep, *n))
    return keep
