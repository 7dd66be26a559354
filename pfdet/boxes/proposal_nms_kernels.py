"""Greedy non-maximum suppression of many lists of boxes on the GPU, without asking the host.

Two kernels. The first compares all pairs of boxes of a list and writes, a bit a pair, which later
boxes each one overlaps; the second has one block a list go through the boxes in order. ChainerCV's
kernel leaves the second half to the CPU, so each list would wait for the device and copy.
"""

from chainer.backends import cuda

# Boxes compared by one block: the bits of a word.
_WORD = 64
# Words of a list that the second kernel holds in shared memory: 65,536 boxes.
_MOST_WORDS = 1024

_OVERLAPS = r"""
extern "C" __global__
void overlaps(const float* bbox, unsigned long long* over, int n_box, int n_word, float thresh) {
    // Block (x, y, z): do the boxes of word y overlap those of word x, in list z?
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
    // One block a list. A bit is set in out once its box is known not to be kept.
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
        // All threads read the same bit, so all of them wait or none does.
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


def suppress_on_gpu(bbox, valid, thresh: float):
    """:func:`~pfdet.boxes.proposal_nms.suppress_sorted` of CuPy arrays.

    Args:
        bbox (array): :math:`(G, K, 4)`, of which it looks at float32 values.
        valid (bool array): :math:`(G, K)`.
        thresh (float): Least IoU that suppresses.

    Returns:
        bool array: :math:`(G, K)`.

    Raises:
        ValueError: There are more than 65,536 boxes in a list.
    """
    cupy = cuda.cupy
    G, K = valid.shape
    n_word = -(-K // _WORD)
    if n_word > _MOST_WORDS:
        raise ValueError(f'{K} boxes in a list; expected at most {_MOST_WORDS * _WORD}')
    bbox = cupy.ascontiguousarray(bbox, dtype='float32')
    valid = cupy.ascontiguousarray(valid)
    keep = cupy.empty((G, K), dtype=bool)
    if keep.size == 0:
        return keep
    # Words below the diagonal are never written, nor read.
    over = cupy.empty((G, K, n_word), dtype='uint64')
    n = cupy.int32(K), cupy.int32(n_word)
    cuda.raw(_OVERLAPS, 'overlaps')(
        (n_word, n_word, G), (_WORD,), (bbox, over, *n, cupy.float32(thresh))
    )
    # One warp a list: its threads go in step, and up to 2048 boxes are a word for each of them.
    cuda.raw(_CHOOSE, 'choose')((G,), (32,), (valid, over, keep, *n))
    return keep
