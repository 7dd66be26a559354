"""Plugin of pytest that allows TF32, so that activations are channels last."""

import pfdet.compat  # noqa: F401

from pfdet.gpu.precision import allow_tf32

allow_tf32(True)
