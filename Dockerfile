# pfdet on CPUs, with MPICH. Build and run it in the root of the checkout:
#
#     docker build -t pfdet .
#     docker run --rm --shm-size=2g --user "$(id -u)" -v "$PWD:/work" pfdet quickstart
#     docker run --rm --shm-size=2g --user "$(id -u)" -v "$PWD:/work" --entrypoint mpiexec pfdet \
#         -n 2 pfdet train --recipe mini --train-index train.index --out run
#
# The ranks of a machine exchange messages in /dev/shm, of which Docker gives 64 MB by default.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Before the sources, which change more often.
COPY Makefile constraints.txt ./
RUN make wheelhouse PYTHON=python3
COPY setup.py pyproject.toml README.md ./
COPY pfdet pfdet
RUN python3 -m venv /opt/pfdet && \
    /opt/pfdet/bin/pip install --no-cache-dir --find-links wheelhouse -c constraints.txt .

FROM python:3.12-slim
COPY --from=build /opt/pfdet /opt/pfdet
ENV PATH=/opt/pfdet/bin:$PATH
WORKDIR /work
ENTRYPOINT ["pfdet"]
CMD ["--help"]
