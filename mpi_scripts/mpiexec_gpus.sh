#!/bin/bash
# Start one rank per GPU, on one machine or on many, with mpiexec:
#
#     mpi_scripts/mpiexec_gpus.sh [OPTION...] COMMAND [ARGUMENT...]
#     mpi_scripts/mpiexec_gpus.sh python train/train_multi.py --backbone B.npz --out run --resume
#     mpi_scripts/mpiexec_gpus.sh -n 512 --hostfile hosts pfdet train --backbone B.npz --out run
#
#     -n RANKS         number of ranks (default: those of one machine)
#     --per-node N     ranks per machine (default: its GPUs, or 1 if there are none)
#     --cores N        cores per rank (default: a machine's cores over its ranks)
#     --hostfile FILE  the machines; without it, all ranks start on this machine
#     --flavor NAME    openmpi, mpich or intel (default: from $MPIEXEC --version)
#     --print          print the command instead of running it
#
# Every rank is bound to consecutive cores. Rank r of a machine selects GPU r itself, so every rank
# must see all GPUs of the machine. OMP_NUM_THREADS is the number of cores per rank, unless it is
# set. These variables are passed to all machines: PATH, LD_LIBRARY_PATH, PYTHONPATH, VIRTUAL_ENV,
# CHAINER_*, CUDA_*, CUPY_*, MPI4PY_*, MPIR_*, NCCL_*, OMP_*, OPENBLAS_*, PFDET_* and UCX_*. For
# NCCL's settings see mpi_scripts/README.md.
#
# On SIGTERM or SIGUSR1 to this script, ranks that train write a snapshot, and the status is 75;
# likewise 130 on SIGINT (Ctrl-C) and 129 on SIGHUP. A second SIGINT ends them at once.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

whole_number() {
    case $2 in '' | *[!0-9]* | 0*) fail "$1 $2: expected a whole number from 1 on" ;; esac
}

ranks='' per_node='' cores='' hostfile='' flavor='' show=''
while [ $# -gt 0 ]; do
    case $1 in
    -n | --per-node | --cores | --hostfile | --flavor)
        [ $# -ge 2 ] || fail "$1: expected a value"
        case $1 in
        -n) whole_number "$1" "$2" && ranks=$2 ;;
        --per-node) whole_number "$1" "$2" && per_node=$2 ;;
        --cores) whole_number "$1" "$2" && cores=$2 ;;
        --hostfile) hostfile=$2 ;;
        --flavor) flavor=$2 ;;
        esac
        shift 2
        ;;
    --print) show=1 && shift ;;
    --) shift && break ;;
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*) fail "$1: no such option; see --help" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no command to start; see --help"
[ -z "$hostfile" ] || [ -r "$hostfile" ] || fail "--hostfile $hostfile: no such file"

if [ -z "$per_node" ]; then
    per_node=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU') || true
    [ "$per_node" -gt 0 ] || per_node=1
    # On one machine with fewer ranks than GPUs, each rank gets more cores.
    if [ -z "$hostfile" ] && [ -n "$ranks" ] && [ "$ranks" -lt "$per_node" ]; then
        per_node=$ranks
    fi
fi
ranks=${ranks:-$per_node}
if [ -z "$hostfile" ] && [ "$ranks" -gt "$per_node" ]; then
    fail "-n $ranks: more than $per_node per machine; give --hostfile or --per-node"
fi
if [ -z "$cores" ]; then
    # Launchers count cores, nproc counts hardware threads. Only nproc knows a container's limit.
    all=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || true
    usable=$(nproc)
    if [ "$all" -eq 0 ] || [ "$usable" -lt "$all" ]; then all=$usable; fi
    cores=$((all / per_node))
    [ "$cores" -gt 0 ] || cores=1
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cores}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$OMP_NUM_THREADS}

mpiexec=${MPIEXEC:-mpiexec}
if [ -z "$flavor" ]; then
    version=$("$mpiexec" --version 2>&1) || fail "$mpiexec --version: does not run; set MPIEXEC"
    case $version in
    *"Open MPI"* | *OpenRTE* | *PRRTE* | *prterun*) flavor=openmpi ;;
    *Intel*) flavor=intel ;;
    *HYDRA*) flavor=mpich ;;
    *) fail "$mpiexec --version: neither Open MPI, MPICH nor Intel MPI; give --flavor" ;;
    esac
fi

passed=()
while IFS= read -r name; do
    case $name in
    PATH | LD_LIBRARY_PATH | PYTHONPATH | VIRTUAL_ENV | CHAINER_* | CUDA_* | CUPY_* | MPI4PY_* | \
        MPIR_* | NCCL_* | OMP_* | OPENBLAS_* | PFDET_* | UCX_*) passed+=("$name") ;;
    esac
done < <(compgen -e | sort)

launch=("$mpiexec" -n "$ranks")
case $flavor in
openmpi)
    [ -z "$hostfile" ] || launch+=(--hostfile "$hostfile")
    launch+=(--map-by "ppr:$per_node:node:PE=$cores" --bind-to core)
    for name in "${passed[@]}"; do launch+=(-x "$name"); done
    ;;
mpich)
    [ -z "$hostfile" ] || launch+=(-f "$hostfile")
    launch+=(-ppn "$per_node" -bind-to "core:$cores")
    launch+=(-genvlist "$(IFS=, && echo "${passed[*]}")")
    ;;
intel)
    [ -z "$hostfile" ] || launch+=(-f "$hostfile")
    launch+=(-ppn "$per_node" -genvlist "$(IFS=, && echo "${passed[*]}")")
    launch+=(-genv I_MPI_PIN_CELL core -genv I_MPI_PIN_DOMAIN "$cores:compact")
    ;;
*) fail "--flavor $flavor: expected openmpi, mpich or intel" ;;
esac

if [ -n "$show" ]; then
    printf '%q ' "${launch[@]}" "$@"
    echo
    exit 0
fi
# Open MPI's mpiexec forwards SIGUSR1. Other signals make it kill the ranks within a second, before
# they have written a snapshot. Those of MPICH and Intel MPI forward all signals but SIGHUP, of which
# they die. So mpiexec gets a process group of its own, which the terminal's signals do not reach.
set -m
"${launch[@]}" "$@" </dev/null &
job=$!
signalled='' interrupted='' user_status=''
stop() {
    signalled=1
    kill -"$1" "$job" 2>/dev/null || true
}
hang_up() {
    user_status=129
    stop USR1
}
interrupt() {
    if [ "$flavor" != openmpi ]; then
        # They end the ranks at the second SIGINT themselves.
        stop INT
    elif [ -n "$interrupted" ]; then
        stop TERM
    else
        interrupted=1 user_status=130
        stop USR1
    fi
}
trap 'stop USR1' USR1
trap hang_up HUP
trap interrupt INT
if [ "$flavor" = openmpi ]; then trap 'stop USR1' TERM; else trap 'stop TERM' TERM; fi

# A signal interrupts the wait, but the ranks run on: wait again. Status 127 means already done.
status=0
wait "$job" || status=$?
while [ -n "$signalled" ]; do
    signalled='' again=0
    wait "$job" || again=$?
    [ "$again" -eq 127 ] || status=$again
done
# The ranks have got SIGUSR1 in place of the user's signal: 75 if they train, 138 if not.
case $status in
75 | 138) [ -z "$user_status" ] || status=$user_status ;;
esac
exit "$status"
