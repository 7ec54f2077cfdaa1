#!/usr/bin/env bash
# A search over the nodes of one Slurm job: sbatch configs/cluster/slurm.sh windows my-search [OPTIONS OF run...]
#SBATCH --job-name=search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --time=12:00:00
# Half a minute before the time is up, or when the job is preempted: the search saves and says how to go on.
#SBATCH --signal=B:TERM@30
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

task=$1 name=$2
shift 2
: "${SEARCH_STORE:=$PWD/mlruns}"
export SEARCH_STORE

# Whoever reaches Ray's ports needs the token.
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((10000 + SLURM_JOB_ID % 50000))
cpus=${SLURM_CPUS_PER_TASK:-1}

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$head" --port="$port" --num-cpus="$cpus" --disable-usage-stats --block &
# Workers try until the head answers.
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" \
        ray start --address="$head:$port" --num-cpus="$cpus" --disable-usage-stats --block &
done
until ray health-check --address="$head:$port" >/dev/null 2>&1; do sleep 1; done

# A job that was requeued goes on where the search stopped.
if [ -e "$SEARCH_STORE/searches/$name/search.json" ]; then
    python -m search resume "$name" --address "$head:$port" &
else
    python -m search run "$task" --name "$name" --address "$head:$port" "$@" &
fi
search=$!
trap 'kill -TERM "$search"' TERM
status=0
wait "$search" || status=$?
# A signal ends the first wait; the search then still saves.
wait "$search" || status=$?
exit "$status"
