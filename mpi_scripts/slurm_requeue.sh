#!/bin/bash
# Train under Slurm through time limits and preemptions: stop with a snapshot, queue again, go on.
#
#     sbatch mpi_scripts/slurm_requeue.sh python train/train_multi.py --out run
#
# Ten minutes before the time is up, Slurm sends USR1 to this script, which passes it on through
# srun to all ranks; a preemption's TERM likewise. They finish the iteration, write a snapshot and
# exit with status 75 (pfdet.training.preemption); the job is then queued again under its own id
# and appends to its log. --resume is added to the command, so that the first start is like every
# other: where there is no snapshot, training begins. Any other status is the job's, and final.
#
# The ten minutes must be longer than an iteration, a snapshot, and a validation, which is not
# interrupted, together. After MAX_RESTARTS (100) it is given up: something stops it each time.
# GPUs and PFDET_SRUN_MPI are as in slurm_train.sh; SRUN and SCONTROL are the programs.
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
stopped=75

cpus=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$OMP_NUM_THREADS}

case " $* " in
*' --resume '*) resume=() ;;
*) resume=(--resume) ;;
esac

step='' signalled=''
pass_on() {
    signalled=1
    echo "$(date '+%F %T') asked to stop: telling the ranks" >&2
    [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null || true
}
trap pass_on USR1 TERM

# In the background, because bash looks at signals only while it waits. No --kill-on-bad-exit: the
# ranks that are done first would have the one killed that still writes the snapshot.
"${SRUN:-srun}" --mpi="${PFDET_SRUN_MPI:-pmix}" --gpus-per-task=1 --gpu-bind=none \
    --cpus-per-task="$cpus" --cpu-bind=cores --distribution=block:block \
    --kill-on-bad-exit=0 --wait=60 --export=ALL "$@" ${resume[@]+"${resume[@]}"} &
step=$!

# A signal ends the wait, but not the ranks: wait again. A second wait for what is done says 127.
status=0
wait "$step" || status=$?
while [ -n "$signalled" ]; do
    signalled=''
    again=0
    wait "$step" || again=$?
    [ "$again" -eq 127 ] || status=$again
done

if [ "$status" -ne "$stopped" ]; then
    exit "$status"
fi
if [ "${SLURM_RESTART_COUNT:-0}" -ge "${MAX_RESTARTS:-100}" ]; then
    echo "$(date '+%F %T') stopped; restarted ${SLURM_RESTART_COUNT:-0} times: giving up" >&2
    exit "$status"
fi
echo "$(date '+%F %T') stopped with a snapshot: queueing again" >&2
"${SCONTROL:-scontrol}" requeue "$SLURM_JOB_ID" || exit "$status"
