#!/bin/bash
# Start hundreds of ranks on one machine, to preview a run on 512 GPUs on two cores:
#
#     mpi_scripts/many_ranks_one_machine.sh RANKS COMMAND [ARGUMENT...]
#     mpi_scripts/many_ranks_one_machine.sh 512 python train/train_multi.py --recipe mini --dry-run
#
# MPICH's mpiexec hangs with more than about 300 ranks per launcher proxy. So this script gives each
# proxy at most 128 ranks, by four names of this machine. The job ends when less than PFDET_GUARD_MB
# (1500) of memory is available, or after PFDET_TIMEOUT (600) seconds.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | head -n 4 >&2
    exit 2
fi
ranks=$1
shift

# One thread per rank, one malloc arena, freed memory is returned. For MPICH's settings see
# pfdet/training/dry_run/oversubscription.py.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536
export MPIR_CVAR_ENABLE_HEAVY_YIELD=1 MPIR_CVAR_POLLS_BEFORE_YIELD=1
export MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_NUM_CELLS=8 MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_CELL_SIZE=8192
# With OFI's sockets a rank needs about 4 KB per other rank, with UCX 13 KB or more. Ranks of a proxy
# use shared memory in either case. MPICH from PyPI has both; for others, set PFDET_NETMOD=ucx.
export MPIR_CVAR_CH4_NETMOD=${PFDET_NETMOD:-ofi} FI_PROVIDER=sockets UCX_TLS=posix,self

hosts=()
if [ "$ranks" -gt 256 ]; then
    names=(localhost 127.0.0.1 127.0.0.2 "$(hostname)")
    share=$(((ranks + 3) / 4))
    hosts=(-launcher fork -hosts "$(printf "%s:$share," "${names[@]}" | sed 's/,$//')")
fi

# In a separate session, so that all processes can be killed together.
setsid mpiexec ${hosts[@]+"${hosts[@]}"} -n "$ranks" "$@" &
job=$!
end() {
    kill -TERM -- "-$job" 2>/dev/null || true
    sleep 5
    kill -KILL -- "-$job" 2>/dev/null || true
}
trap 'end; exit 143' INT TERM

deadline=$((SECONDS + ${PFDET_TIMEOUT:-600}))
least=0
while kill -0 "$job" 2>/dev/null; do
    left=$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
    if [ "$least" -eq 0 ] || [ "$left" -lt "$least" ]; then least=$left; fi
    if [ "$left" -lt "${PFDET_GUARD_MB:-1500}" ]; then
        echo "$0: only $left MB of memory left: ending the job" >&2
        end
        break
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$0: not finished after ${PFDET_TIMEOUT:-600} s: ending the job" >&2
        end
        break
    fi
    sleep 0.5
done
status=0
wait "$job" || status=$?
echo "$ranks ranks: $SECONDS s, at least $least MB of memory left, status $status" >&2
exit "$status"
