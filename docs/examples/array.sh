#!/bin/bash
#SBATCH --array=0-7 --cpus-per-task=4 --mem=8G --time=01:00:00 --requeue --signal=USR2@120
srun runner sweep +experiment=width_scaling shards=8 shard=$SLURM_ARRAY_TASK_ID
# Exit code 140: USR2 said that time is nearly up. The task goes back to the queue and goes on from there.
[[ $? == 140 ]] && scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
