"""Hosts for tests on one machine: network namespaces behind a switch, each with a host name and a /dev/shm of its own.

Every host is a process that holds its namespaces; the kernel takes links and memory away with it, whatever ends this program.
"""
import atexit
import os
import pathlib
import signal
import subprocess
import time

SUBNET = "10.77.0"


class ClusterError(Exception):
    """A command of the cluster failed; the text says which."""


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Host:
    """One host: `enter` is the command that runs another one there."""

    def __init__(self, name, address, shm_mib=2048):
        self.name = name
        self.address = address
        script = f"hostname {name} && mount -t tmpfs -o size={shm_mib}m tmpfs /dev/shm && ip link set lo up && echo ready && exec sleep infinity"
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        if self.holder.stdout.readline().strip() != "ready":
            raise ClusterError(f"cannot make namespaces (this needs root): {self.holder.stderr.read().strip()}")

    @property
    def enter(self):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-u", "-m", "--"]

    def run(self, command, **options):
        return run(self.enter + list(command), **options)

    def segments(self):
        """Names in its /dev/shm."""
        return os.listdir(pathlib.Path(f"/proc/{self.holder.pid}/root", "dev/shm"))

    def leftovers(self):
        """Names of segments that stayed behind."""
        return [name for name in self.segments() if name.startswith("wideload.")]

    def close(self):
        self.holder.send_signal(signal.SIGKILL)
        self.holder.wait()
        self.holder.stdout.close()
        self.holder.stderr.close()


class Cluster:
    """`count` hosts h0, h1, ... with addresses SUBNET.1, SUBNET.2, ... and a switch."""

    def __init__(self, count, folder):
        self.folder = pathlib.Path(folder)
        self.hosts = []
        self.switch = None
        atexit.register(self.close)  # Ctrl-C ends unittest without its cleanups
        try:
            self.switch = Host("switch", f"{SUBNET}.254")
            self.switch.run(["ip", "link", "add", "br0", "type", "bridge"])
            self.switch.run(["ip", "addr", "add", f"{SUBNET}.254/24", "dev", "br0"])
            self.switch.run(["ip", "link", "set", "br0", "up"])
            for i in range(count):
                self._add(Host(f"h{i}", f"{SUBNET}.{i + 1}"), i)
        except BaseException:
            self.close()
            raise

    def _add(self, host, i):
        self.hosts.append(host)
        run(["ip", "link", "add", "name", "eth0", "netns", host.holder.pid, "type", "veth", "peer", "name", f"port{i}", "netns",
             self.switch.holder.pid])
        self.switch.run(["ip", "link", "set", f"port{i}", "master", "br0", "up"])
        host.run(["ip", "addr", "add", f"{host.address}/24", "dev", "eth0"])
        host.run(["ip", "link", "set", "eth0", "up"])

    def limit_rate(self, mbit):
        """Each host sends at most so much. The kernel drops what waits longer than 50 ms."""
        for host in self.hosts:
            host.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency",
                      "50ms"])

    def unlimit_rate(self):
        for host in self.hosts:
            host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])

    def lose(self, per_mille):
        """Each host loses so many of the packets that come in."""
        for host in self.hosts:
            host.run(["nft", "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; "
                      f"add rule inet loss in iifname eth0 numgen random mod 1000 < {per_mille} counter drop"])

    def lose_nothing(self):
        for host in self.hosts:
            host.run(["nft", "delete table inet loss"])

    def lost_packets(self):
        return sum(int(host.run(["nft", "list", "table", "inet", "loss"]).split("packets ")[1].split()[0]) for host in self.hosts)

    def mpirun(self, ranks_per_host, command, variables=(), options=(), timeout=300, meanwhile=None):
        """Runs command as ranks_per_host ranks on each host; returns (exit code, output). `meanwhile(output path)` runs beside it."""
        hostfile = self.folder / "hostfile"
        hostfile.write_text("".join(f"{host.name} slots={ranks_per_host}\n" for host in self.hosts))
        agent = self.folder / "agent"
        cases = "".join(f"{host.name}) holder={host.holder.pid};;\n" for host in self.hosts)
        agent.write_text(f"#!/bin/sh\nname=$1; shift\ncase $name in\n{cases}esac\nmkdir -p {self.folder}/tmp.$name\n"
                         f"exec nsenter -t $holder -n -u -m -- env TMPDIR={self.folder}/tmp.$name /bin/sh -c \"$*\"\n")
        agent.chmod(0o755)
        first = self.hosts[0]
        (self.folder / f"tmp.{first.name}").mkdir(exist_ok=True)
        words = first.enter + ["env", f"TMPDIR={self.folder}/tmp.{first.name}", *mpi_variables(), *variables, "mpirun",
                               "--hostfile", str(hostfile), "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", str(agent),
                               "--mca", "oob_tcp_if_include", f"{SUBNET}.0/24", "--mca", "btl_tcp_if_include", f"{SUBNET}.0/24",
                               "--mca", "btl", "tcp,vader,self", "--map-by", "slot", *options]
        for variable in (*mpi_variables(), *variables):
            words += ["-x", variable.split("=")[0]]
        words += ["-n", str(ranks_per_host * len(self.hosts)), *command]
        return self._run_bounded(words, timeout, meanwhile)

    def _run_bounded(self, words, timeout, meanwhile):
        output = self.folder / "output"
        with open(output, "w", encoding="utf-8") as out:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *map(str, words)], stdout=out, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                if meanwhile:
                    meanwhile(output)
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = 124
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(5)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
        return code, output.read_text(encoding="utf-8", errors="replace")

    def ranks(self, program):
        """Processes of the hosts that run `program` under MPI: {rank: pid}."""
        found = {}
        spaces = [pathlib.Path(f"/proc/{host.holder.pid}/ns/net").readlink() for host in self.hosts]
        for process in pathlib.Path("/proc").iterdir():
            try:
                if not process.name.isdigit() or (process / "exe").readlink() != pathlib.Path(program).resolve():
                    continue
                if (process / "ns/net").readlink() in spaces:
                    variables = dict(v.split(b"=", 1) for v in (process / "environ").read_bytes().split(b"\0") if b"=" in v)
                    found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(process.name)
            except (OSError, KeyError):
                continue
        return found

    def leftovers(self):
        """Segments that stayed on any host; a dying process gets a moment."""
        for _ in range(20):
            found = [f"{host.name}:{name}" for host in self.hosts for name in host.leftovers()]
            if not found:
                return []
            time.sleep(0.1)
        return found

    def close(self):
        for host in self.hosts:
            end_processes_of(host)
            host.close()
        if self.switch is not None:
            self.switch.close()
        self.hosts, self.switch = [], None
        atexit.unregister(self.close)


def end_processes_of(host):
    """Ends what still runs in the namespaces of a host, but its holder."""
    mine = host.holder.pid
    space = pathlib.Path(f"/proc/{mine}/ns/net")
    try:
        wanted = space.readlink()
    except OSError:
        return
    for process in pathlib.Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == mine:
            continue
        try:
            if (process / "ns/net").readlink() == wanted:
                subprocess.run(["kill", "-KILL", process.name], check=False, stderr=subprocess.DEVNULL)
        except OSError:
            continue


def mpi_variables():
    """More ranks than cores, as root or not."""
    return ["OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1",
            "OMPI_MCA_hwloc_base_binding_policy=none", "OMPI_MCA_mpi_yield_when_idle=1"]
