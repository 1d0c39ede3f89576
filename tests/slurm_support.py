"""The commands of Slurm as small programs, as far as they matter here, and a queue in a folder."""

import os
from pathlib import Path

COMMANDS = {
    "sbatch": """
refuse() { echo "sbatch: error: $1" >&2; exit 1; }
if grep -q partition=full "$1" && [ -e $QUEUE/101.sh ]; then refuse "queue is full"; fi
if grep -q partition=wrong "$1"; then refuse "invalid partition specified"; fi
id=$((101 + $(ls $QUEUE/*.sh 2>/dev/null | wc -l)))
cp "$1" $QUEUE/$id.sh
printf RUNNING > $QUEUE/$id.state
export SLURM_JOB_ID=$id SLURM_JOB_NAME=samfit SLURM_JOB_NODELIST=node1 SLURM_NNODES=1 SLURM_NTASKS=1
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
(
  sh $QUEUE/$id.sh && state=COMPLETED || state=FAILED
  if [ -e $QUEUE/$id.cancelled ]; then state='CANCELLED by 1000'; fi
  if [ $(cat $QUEUE/$id.state) = RUNNING ]; then printf "$state" > $QUEUE/$id.state; fi
) < /dev/null > /dev/null 2>&1 &
echo Submitted batch job $id
""",
    "srun": """
out=$(echo "$3" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/") err=$(echo "$5" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/")
shift 5
echo $$ > $QUEUE/$SLURM_JOB_ID.pid
exec "$@" > "$out" 2> "$err"
""",
    "sacct": """
echo 'JobID|State|NodeList'
for file in $QUEUE/*.state; do echo "$(basename $file .state)|$(cat $file)|node1"; done
""",
    "scancel": """
touch $QUEUE/$1.cancelled
kill -TERM $(cat $QUEUE/$1.pid)
""",
}
"""What each does; the files of jobs lie in the folder QUEUE."""


def slurm_in(folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the commands into a folder; return the folder of the queue, and what finds both."""
    commands, queue = folder / "bin", folder / "queue"
    commands.mkdir()
    queue.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh{text}")
        (commands / name).chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    return queue, {"PATH": path, "QUEUE": str(queue)}
