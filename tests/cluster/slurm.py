"""A SLURM of its own on the hosts of a Cluster: controller on the switch, one slurmd per host, munge with a key of its own."""
import atexit
import os
import pathlib
import subprocess
import time

from hosts import SUBNET, ClusterError, mpi_variables

CONF = """ClusterName=wideloadtest
SlurmctldHost=switch({subnet}.254)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
TmpFS={folder}/tmp.%n
ReturnToService=2
KillOnBadExit=1
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=30 State=UP OverSubscribe=YES
"""


class Slurm:
    def __init__(self, cluster):
        self.cluster = cluster
        self.folder = pathlib.Path(cluster.folder) / "slurm"
        self.daemons = []
        atexit.register(self.close)
        names = [host.name for host in cluster.hosts]
        for name in ("state", *(f"spool.{n}" for n in names), *(f"tmp.{n}" for n in names)):
            (self.folder / name).mkdir(parents=True)
        nodes = "\n".join(f"NodeName={h.name} NodeAddr={h.address} CPUs=8 RealMemory=2000 State=UNKNOWN" for h in cluster.hosts)
        self.conf = self.folder / "slurm.conf"
        self.conf.write_text(CONF.format(subnet=SUBNET, folder=self.folder, nodes=nodes))
        try:
            self._start_munge()
            self._start(cluster.switch, ["slurmctld", "-D", "-c"])
            for host in cluster.hosts:
                self._start(host, ["slurmd", "-D", "-N", host.name])
            self._await_idle(len(names))
        except BaseException:
            self.close()
            raise

    def _start_munge(self):
        key = self.folder / "munge.key"
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
            out.write(os.urandom(128))
        self._start(None, ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.sock",
                           f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                           f"--seed-file={self.folder}/munge.seed"])
        self._await(lambda: (self.folder / "munge.sock").exists(), "munged does not open its socket")

    def _start(self, host, command):
        log = open(self.folder / f"{command[0]}.{host.name if host else 'all'}.out", "wb")
        words = ["setpriv", "--pdeathsig", "TERM", *(host.enter if host else []), "env", f"SLURM_CONF={self.conf}", *command]
        self.daemons.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))
        log.close()

    def _await(self, is_done, problem, seconds=60):
        for _ in range(seconds * 10):
            if is_done():
                return
            time.sleep(0.1)
        logs = "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}\n" for path in self.folder.glob("*.log"))
        raise ClusterError(f"{problem} within {seconds} s\n{logs}")

    def _await_idle(self, count):
        def is_idle():
            code, states = self.run(["sinfo", "-h", "-N", "-o", "%T"])
            return code == 0 and states.split() == ["idle"] * count
        self._await(is_idle, f"{count} nodes are not idle")

    def run(self, command, variables=(), timeout=300):
        """Runs a command of SLURM on the first host; returns (exit code, output)."""
        first = self.cluster.hosts[0]
        network = [f"OMPI_MCA_btl_tcp_if_include={SUBNET}.0/24", "OMPI_MCA_btl=tcp,vader,self"]
        words = [*first.enter, "env", f"SLURM_CONF={self.conf}", *mpi_variables(), *network, *variables, *map(str, command)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout, check=False, cwd=self.folder)
        return done.returncode, done.stdout

    def sbatch(self, script, arguments=(), options=(), variables=(), timeout=300):
        """Submits a script and waits for its end; returns (exit code, its output)."""
        out = self.folder / f"{pathlib.Path(script).stem}.out"
        out.unlink(missing_ok=True)
        code, text = self.run(["sbatch", "--parsable", f"--output={out}", *options, script, *arguments], variables)
        if code != 0:
            return code, text
        job = text.strip().split(";")[0]
        found = {}

        def has_ended():
            _, shown = self.run(["scontrol", "show", "job", job, "-o"])
            found.update(word.split("=", 1) for word in shown.split() if "=" in word)
            return found.get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self._await(has_ended, f"job {job} has not ended", timeout)
        return int(found["ExitCode"].split(":")[0]), out.read_text(errors="replace")

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons = []
        atexit.unregister(self.close)
