"""Draft: makes Chainer import; being rewritten."""
import sys
import types

import numpy as np

if not hasattr(np, 'sctypes'):
    np.sctypes = {'int': [np.int8, np.int16, np.int32, np.int64],
                  'uint': [np.uint8, np.uint16, np.uint32, np.uint64],
                  'float': [np.float16, np.float32, np.float64],
                  'complex': [np.complex64, np.complex128], 'others': [bool, object, bytes, str, np.void]}
for _n, _v in dict(float=float, int=int, object=object).items():
    if _n not in np.__dict__:
        setattr(np, _n, _v)
if not hasattr(np, 'product'):
    np.product = np.prod
try:
    import numpy.distutils.system_info  # noqa
except Exception:
    m = types.ModuleType('numpy.distutils'); s = types.ModuleType('numpy.distutils.system_info')
    s.get_info = lambda *a, **k: {}
    m.system_info = s; np.distutils = m
    sys.modules['numpy.distutils'] = m; sys.modules['numpy.distutils.system_info'] = s
if 'distutils.util' not in sys.modules:
    try:
        import distutils.util  # noqa
    except Exception:
        d = types.ModuleType('distutils'); u = types.ModuleType('distutils.util')
        u.strtobool = lambda v: int(v in ('1', 'true', 'yes')); d.util = u
        sys.modules['distutils'] = d; sys.modules['distutils.util'] = u
nms = types.ModuleType('chainercv.utils.bbox._nms_gpu_post')
nms._nms_gpu_post = None
sys.modules.setdefault('chainercv.utils.bbox._nms_gpu_post', nms)
