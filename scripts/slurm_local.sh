#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: `scripts/slurm_local.sh start|stop`. Debian, as root:
# apt-get install slurm-wlm munge. It takes over /etc/slurm/slurm.conf, and refuses where one of another cluster is.
set -euo pipefail

conf=/etc/slurm/slurm.conf
mark='# of scripts/slurm_local.sh'
stand_in=/usr/local/bin/sacct

stop_by() { # the pid file's process alone, and only if it is the program it should be
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 0
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]]; then
    kill "$pid"
    for _ in $(seq 50); do
      [[ -d /proc/$pid ]] || break
      sleep 0.1
    done
  fi
}

stop() {
  stop_by /run/slurmd.pid slurmd
  stop_by /run/slurmctld.pid slurmctld
  stop_by /run/munge/munged.pid munged
  if [[ -f $stand_in ]] && grep -q "$mark" "$stand_in"; then rm -f "$stand_in"; fi
  if [[ -f $conf ]] && grep -q "$mark" "$conf"; then rm -f "$conf"; fi
}

start() {
  if [[ $(id -u) != 0 ]]; then
    echo "slurm_local.sh must be run as root" >&2
    exit 2
  fi
  for program in munged slurmctld slurmd; do
    if [[ ! -x /usr/sbin/$program ]]; then
      echo "$program is missing: apt-get install slurm-wlm munge" >&2
      exit 2
    fi
  done
  if [[ -f $conf ]] && ! grep -q "$mark" "$conf"; then
    echo "$conf is of another cluster: not touched" >&2
    exit 2
  fi
  stop
  install -d /etc/slurm /var/spool/slurmd /var/log/slurm
  rm -rf /var/spool/slurmctld # jobs of an earlier start
  install -d /var/spool/slurmctld
  cat >"$conf" <<CONF
$mark
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,batch_sched_delay=1
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
  # Without accounting submitit would wait for ever for a job that was killed.
  if [[ ! -e $stand_in ]]; then
    cat >"$stand_in" <<'SACCT'
#!/bin/sh
# of scripts/slurm_local.sh: the little of sacct that submitit asks for, from squeue
echo 'JobID|State|NodeList'
exec squeue --noheader --array --states=all --format='%i|%T|%N'
SACCT
    chmod 755 "$stand_in"
  fi
  install -d -o munge -g munge -m 0755 /run/munge
  install -d -o munge -g munge -m 0700 /var/lib/munge /etc/munge /var/log/munge
  if [[ ! -s /etc/munge/munge.key ]]; then
    (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
    chown munge:munge /etc/munge/munge.key
  fi
  runuser -u munge -- /usr/sbin/munged --force
  /usr/sbin/slurmctld
  sleep 2
  /usr/sbin/slurmd
  for _ in $(seq 60); do
    if [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]]; then return; fi
    sleep 0.5
  done
  echo "the node did not become idle; see /var/log/slurm" >&2
  tail -5 /var/log/slurm/*.log >&2
  exit 1
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *)
    echo "usage: scripts/slurm_local.sh start|stop" >&2
    exit 2
    ;;
esac
