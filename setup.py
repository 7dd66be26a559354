"""The package and its dependencies. Installing them needs workarounds: see docs/install.md."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / 'README.md'
ONNX = ['onnx>=1.14', 'onnxruntime>=1.15']
TENSORBOARD = ['tensorboardX>=2.6']


def version() -> str:
    """Read ``__version__`` without importing the package."""
    for line in (ROOT / 'pfdet' / '__init__.py').read_text().splitlines():
        if line.startswith('__version__'):
            return line.split("'")[1]
    raise ValueError('pfdet/__init__.py has no line that starts with __version__')


setup(
    name='pfdet',
    version=version(),
    description='Large-scale object detection on Open Images with Chainer, on 1 to 512 GPUs',
    long_description=README.read_text(encoding='utf-8') if README.exists() else '',
    long_description_content_type='text/markdown',
    author='pfdet authors',
    license='MIT',
    classifiers=[
        'License :: OSI Approved :: MIT License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['pfdet', 'pfdet.*']),
    package_data={
        'pfdet.openimages': ['data/*'],
        'pfdet.recipes': ['data/*.json'],
        'pfdet.report': ['*.html.jinja'],
    },
    entry_points={'console_scripts': ['pfdet = pfdet.cli.main:console']},
    # Both ends of the ranges are tested: constraints-oldest.txt and constraints.txt.
    python_requires='>=3.10,<3.14',
    install_requires=[
        'chainer==7.8.1',
        'chainercv==0.13.1',
        'jinja2>=3.1',
        'matplotlib>=3.6',
        'mpi4py>=4.1',
        # An MPI without a compiler or root. While it is installed, mpi4py prefers it to any other:
        # to use a cluster's, uninstall it or set MPI4PY_LIBMPI (docs/install.md).
        'mpich>=4.2',
        'numpy>=1.23,<3',
        'opencv-python-headless>=4.6',
        'packaging>=23',
        'pillow>=9.4',
        'protobuf>=3.20',
        'pyarrow>=10',
        # For the data.yaml of YOLO.
        'pyyaml>=6.0.1',
        'scipy>=1.9',
        'threadpoolctl>=3.1',
        'tqdm>=4.64',
    ],
    extras_require={
        # Each extra installs all of CUDA except the driver. With CuPy 13, Chainer calls cuDNN 8;
        # with CuPy 14, pfdet.gpu calls cuDNN 9 through its front end.
        'cuda12': [
            'cupy-cuda12x>=13,<14',
            'nvidia-cublas-cu12',
            'nvidia-cuda-nvrtc-cu12',
            'nvidia-cuda-runtime-cu12',
            'nvidia-cudnn-cu12>=8.9,<9',
            'nvidia-cufft-cu12',
            'nvidia-curand-cu12',
            'nvidia-cusolver-cu12',
            'nvidia-cusparse-cu12',
            'nvidia-nccl-cu12>=2.16.5,<3',
        ],
        'cuda13': [
            'cupy-cuda13x[ctk]>=14,<15',
            'nvidia-cudnn-cu13>=9.10,<10',
            'nvidia-cudnn-frontend>=1.32',
            'nvidia-nccl-cu13>=2.27.7,<3',
        ],
        'dev': [
            'coverage>=7.16',
            'ensemble-boxes>=1.0.9',
            'hypothesis>=6.62',
            'mypy>=1.5',
            *ONNX,
            'pycocotools>=2.0.7',
            'pytest>=7.4',
            'pytest-xdist>=3.3',
            'ruff',
            *TENSORBOARD,
        ],
        'onnx': ONNX,
        'tensorboard': TENSORBOARD,
        'docs': ['furo>=2025.12', 'myst-parser>=4', 'sphinx>=8.1'],
    },
)
