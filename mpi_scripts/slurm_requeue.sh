#!/bin/bash
# Train under Slurm across time limits and preemptions: write a snapshot, requeue, resume.
#
#     sbatch mpi_scripts/slurm_requeue.sh python train/train_multi.py --backbone B.npz --out run
#
# Ten minutes before the time limit, Slurm sends USR1 to this script, which forwards it through srun
# to all ranks. TERM on preemption is handled the same way. The ranks finish the iteration, write a
# snapshot and exit with status 75 (pfdet.training.preemption). The job is then requeued under the
# same id and appends to its log. --resume is added to the command; without a snapshot, training
# starts from scratch. Any other status is final and becomes the status of the job.
#
# The ten minutes must cover an iteration, a snapshot, and a validation, which is not interrupted.
# The job gives up after MAX_RESTARTS (100). GPUs and PFDET_SRUN_MPI are as in slurm_train.sh; SRUN
# and SCONTROL name the programs.
#SBATCH --job-name=pfdet
#SBATCH --nodes=64
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --gpu-bind=none
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pfdet-%j.log
set -euo pipefail
if [ $# -eq 0 ]; then
    echo 'error: no command to start: sbatch mpi_scripts/slurm_requeue.sh python ...' >&2
    exit 2
fi
stopped_status=75

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

case " $* " in
*' --resume '*) resume=() ;;
*) resume=(--resume) ;;
esac

step='' signalled=''
forward() {
    signalled=1
    echo "$(date '+%F %T') asked to stop: signalling the ranks" >&2
    [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null || true
}
trap forward USR1 TERM

# In the background, because bash handles signals only while it waits. No --kill-on-bad-exit: the
# first ranks to exit would kill the one that still writes the snapshot.
"${SRUN:-srun}" --mpi="$PFDET_SRUN_MPI" ${gpus[@]+"${gpus[@]}"} \
    --cpus-per-task="$cpus" --cpu-bind=cores --distribution=block:block \
    --kill-on-bad-exit=0 --wait=60 --export=ALL "$@" ${resume[@]+"${resume[@]}"} &
step=$!

# A signal interrupts the wait, but the ranks run on: wait again. Status 127 means already done.
status=0
wait "$step" || status=$?
while [ -n "$signalled" ]; do
    signalled=''
    again=0
    wait "$step" || again=$?
    [ "$again" -eq 127 ] || status=$again
done

if [ "$status" -ne "$stopped_status" ]; then
    exit "$status"
fi
if [ "${SLURM_RESTART_COUNT:-0}" -ge "${MAX_RESTARTS:-100}" ]; then
    echo "$(date '+%F %T') stopped; restarted ${SLURM_RESTART_COUNT:-0} times: giving up" >&2
    exit "$status"
fi
echo "$(date '+%F %T') stopped with a snapshot: requeueing" >&2
"${SCONTROL:-scontrol}" requeue "$SLURM_JOB_ID" || exit "$status"
