#!/bin/bash
# Train on 1 to 512 GPUs under Slurm; by default 64 machines with 8 GPUs each, as in the paper:
#
#     sbatch mpi_scripts/slurm_train.sh python train/train_multi.py --backbone B.npz --out run --resume
#     sbatch --nodes=1 --ntasks-per-node=1 mpi_scripts/slurm_train.sh python ...
#
# Options of sbatch on the command line override those below. --gpu-bind=none, because rank r of a
# machine selects GPU r itself, so every rank must see all of the job's GPUs on the machine; NCCL
# needs this, too. Consecutive ranks are on the same machine, on consecutive cores, so
# --bn-group-size 8 shares batch statistics within machines.
#
# On a cluster without GPUs, give --gpus-per-task=0 to sbatch, and the cores of a rank:
#
#     sbatch --gpus-per-task=0 --cpus-per-task=8 mpi_scripts/slurm_train.sh pfdet train ...
#
# srun --mpi= is chosen by the MPI library of the command's Python; PFDET_SRUN_MPI overrides it, see
# mpi_scripts/README.md. SRUN (srun) names the program.
#SBATCH --job-name=pfdet
#SBATCH --nodes=64
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --gpu-bind=none
#SBATCH --time=48:00:00
#SBATCH --output=pfdet-%j.log
set -euo pipefail
if [ $# -eq 0 ]; then
    echo 'error: no command to start: sbatch mpi_scripts/slurm_train.sh python ...' >&2
    exit 2
fi

cpus=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$OMP_NUM_THREADS}

gpus=()
case ${SLURM_GPUS_PER_TASK:-0} in
0) ;;
*) gpus=(--gpus-per-task="$SLURM_GPUS_PER_TASK" --gpu-bind=none) ;;
esac
if [ -z "${PFDET_SRUN_MPI:-}" ]; then
    # The Python of the command: its first word, or the one beside it.
    case ${1##*/} in
    python*) python=$1 ;;
    *) python=$(dirname "$(command -v "$1" || echo .)")/python ;;
    esac
    [ -x "$(command -v "$python")" ] || python=python3
    PFDET_SRUN_MPI=$("$python" -m pfdet.mpi) || {
        echo "error: $python -m pfdet.mpi failed; set PFDET_SRUN_MPI to one of srun --mpi=list" >&2
        exit 2
    }
fi

# Since 22.05, srun does not inherit --cpus-per-task from sbatch. A rank that fails ends the others
# itself. A rank that is killed cannot, so all end a minute after the first: not at once, because
# ranks that stop for a snapshot do not exit at the same time.
exec "${SRUN:-srun}" --mpi="$PFDET_SRUN_MPI" ${gpus[@]+"${gpus[@]}"} \
    --cpus-per-task="$cpus" --cpu-bind=cores --distribution=block:block \
    --kill-on-bad-exit=0 --wait=60 --export=ALL "$@"
