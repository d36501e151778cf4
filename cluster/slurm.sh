#!/usr/bin/env bash
# A Ray cluster in a Slurm allocation: srun starts the head on the first node and a worker on each of the others; the job
# runs on this cluster, which ends with the allocation.
#
# Start:   sbatch cluster/slurm.sh classifier tune /shared/photos --out /shared/runs --name mine
# Logs:    tail -f slurm-ID.out
# Stop:    scancel --signal=TERM --batch ID    (the job saves its best model; scancel ID kills it at once)
#
#SBATCH --job-name=classifier
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

# One token per job, readable only by this user.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | cut -d' ' -f1)
port=$((20000 + SLURM_JOB_ID % 20000))  # so that jobs that share a node use different ports
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=false "${resources[@]}" --block &
until ray health-check --address "$address:$port" 2> /dev/null; do sleep 1; done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address:$port" "${resources[@]}" --block &
fi

[[ $1 != *.py ]] || set -- python "$@"
# Slurm signals this script before the time limit; forward the signal, so that the job saves a checkpoint.
RAY_ADDRESS="$address:$port" "$@" &
job=$!
trap 'kill -TERM $job' TERM
code=0
wait $job || code=$?
while kill -0 $job 2> /dev/null; do wait $job || code=$?; done
exit $code
