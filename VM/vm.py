"""Boots test guests under QEMU and trades Ethernet frames with them.

One datagram of a `Port` is one Ethernet frame: no FCS, no length in front. Everything that is started
here ends with the `with` block it was started in, and with the scenario at the latest.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time

FOLDER = os.path.dirname(os.path.realpath(__file__))
BUILD = os.path.join(os.path.dirname(FOLDER), ".build-vm")
LOGS = os.path.join(BUILD, "logs")


# Properties of QEMU's that have underscores; all others have hyphens.
UNDERSCORED = {"iommu_platform", "ctrl_vq", "any_layout", "event_idx", "host_mtu", "mrg_rxbuf"}


class VMError(Exception):
    """Why a scenario cannot go on: what was tried, and what was found."""


class Skip(Exception):
    """QEMU cannot be had; the message says which part is missing."""


def needs(*parts, timeout=300):
    """Declares what a scenario needs: "qemu-new", "ixy_static", "dpdk", "tap"; and its longest duration in
    seconds, which is the only limit for what its guest does: generous, since a busy host is slow."""

    def declare(scenario):
        scenario.needs = parts
        scenario.timeout = timeout
        return scenario

    return declare


# Files for the guest


def cpio(files):
    """The bytes of a cpio archive with {guest path: bytes, or the path of a host file}.

    Everything belongs to root and is executable; folders are made as needed.
    """
    archive = bytearray()

    def entry(name, mode, content=b""):
        fields = (len(archive) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive.extend(b"070701" + b"".join(b"%08X" % field for field in fields))
        archive.extend(name.encode() + b"\0")
        archive.extend(b"\0" * (-len(archive) % 4))
        archive.extend(content)
        archive.extend(b"\0" * (-len(archive) % 4))

    made = {"", "tmp"}  # An entry for /tmp would take its mode 1777 away.
    for path, content in files.items():
        path = path.strip("/")
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                entry(folder, stat.S_IFDIR | 0o755)
        if not isinstance(content, (bytes, bytearray)):
            with open(content, "rb") as file:
                content = file.read()
        entry(path, stat.S_IFREG | 0o755, content)
    entry("TRAILER!!!", 0)
    archive.extend(b"\0" * (-len(archive) % 512))
    return bytes(archive)


def program(path, at="/usr/bin"):
    """{guest path: host path} of a dynamically linked program and the libraries that it names."""
    path = shutil.which(path, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or path
    listed = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    libraries = re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", listed, re.MULTILINE)
    return {f"{at}/{os.path.basename(path)}": path, **{library: library for library in libraries}}


# Processes


def spawn(command, **options):
    """Starts a process that the kernel kills should the calling thread end without doing so."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, command)], **options)


def end(process, timeout=60, ask=signal.SIGTERM):
    """Ends a process of ours: asks first, kills after `timeout` seconds. Returns its exit status."""
    if process.poll() is None and ask:
        process.send_signal(ask)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout)
    if process.poll() is None:
        process.kill()
    return process.wait()


class Server:
    """A process on the host, such as `ixy emulate`; `sockets` are the UNIX sockets it will listen on."""

    def __init__(self, command, sockets=(), *, log, timeout=60, environment=None):
        self.command = [str(word) for word in command]
        self._logs = (log + ".out", log + ".err")
        with open(self._logs[0], "wb") as out, open(self._logs[1], "wb") as err:
            self.process = spawn(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
            )
        try:
            self._wait_for_sockets([str(path) for path in sockets], timeout)
        except BaseException:
            self.stop()
            raise

    def _wait_for_sockets(self, paths, timeout):
        deadline = time.monotonic() + timeout
        while not all(self._listens(path) for path in paths):
            if self.process.poll() is not None:
                raise VMError(f"{self.command}: ended with {self.process.poll()}: {self.tail()}")
            if time.monotonic() > deadline:
                raise VMError(f"{self.command}: no listener at {paths} in {timeout} s: {self.tail()}")
            time.sleep(0.02)

    def _listens(self, path):
        # A path appears with bind(2), before listen(2): only this table tells the two apart (flag
        # 00010000). A connection as a test would use up the one client that a vfio-user server takes.
        # Ours listens at PATH.pid first and is linked to its path then: the table keeps the first name.
        names = (path, f"{path}.{self.process.pid}")
        with contextlib.suppress(OSError):
            with open(f"/proc/{self.process.pid}/net/unix") as table:
                words = [line.split() for line in table]
            listening = any(word[3] == "00010000" and word[-1] in names for word in words)
            return listening and os.path.exists(path)
        return False

    @property
    def stdout(self):
        """What the process has written so far."""
        return open(self._logs[0], errors="replace").read()

    @property
    def stderr(self):
        """What the process has written so far."""
        return open(self._logs[1], errors="replace").read()

    def tail(self):
        """The last lines of both, for a message."""
        return " | ".join((self.stdout + self.stderr).strip().splitlines()[-5:]) or "(no output)"

    def held(self):
        """What it holds: (file descriptors, KiB of guests' memory that it has mapped)."""
        process = f"/proc/{self.process.pid}"
        mapped = 0
        with open(f"{process}/maps") as maps:
            for line in maps:
                # QEMU's name for the guest's memory; a card's own registers are in a memfd, too.
                if "memory-backend-memfd" in line:
                    start, end = (int(word, 16) for word in line.split()[0].split("-"))
                    mapped += (end - start) // 1024
        return len(os.listdir(f"{process}/fd")), mapped

    def wait(self, timeout=60):
        """The exit status of a process that ends by itself."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise VMError(f"{self.command}: still runs after {timeout} s: {self.tail()}") from None

    def stop(self, ask=signal.SIGTERM, timeout=60):
        """Ends the process, by SIGTERM first, and returns its exit status (negative: killed by it)."""
        return end(self.process, timeout, ask)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        status = self.stop()
        if status != 0 and kind is None:
            raise VMError(f"{self.command}: ended with {status}: {self.tail()}")


# Network


class Port:
    """The host's end of one `-netdev dgram`."""

    def __init__(self, name, directory):
        self.name = name
        self._guest = os.path.join(directory, name + ".guest")
        self._host = os.path.join(directory, name + ".host")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._host)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def netdev(self):
        """QEMU's arguments for the backend; its id is the port's name."""
        return [
            "-netdev",
            f"dgram,id={self.name},local.type=unix,local.path={self._guest},"
            f"remote.type=unix,remote.path={self._host}",
        ]

    def nic(self, model, mac=None, **properties):
        """QEMU's arguments for an emulated NIC at this port, e.g. `nic("e1000e", addr="5")`.

        Underscores in names of properties become hyphens, except where QEMU has them so.
        """
        device = {"netdev": self.name, "id": self.name + "-nic", "romfile": "", **properties}
        if mac:
            device["mac"] = mac
        words = [f"{key if key in UNDERSCORED else key.replace('_', '-')}={value}"
                 for key, value in device.items()]
        return [*self.netdev(), "-device", ",".join([model, *words])]

    def wire(self):
        """The words for `ixy`: the wire of an emulated card of ours whose cable ends at this port."""
        return f"dgram,local={self._guest},remote={self._host}"

    def send(self, frame, timeout=60):
        """Sends one frame; waits while the guest's queue is full."""
        self._socket.settimeout(timeout)
        try:
            self._socket.sendto(frame, self._guest)
        except OSError as error:
            raise VMError(f"port {self.name}: cannot send to the guest: {error}") from None

    def send_all(self, frames, per_second=2000):
        """Sends frames at a steady rate; a guest under TCG loses none at some thousands a second."""
        start = time.monotonic()
        for index, frame in enumerate(frames):
            wait = start + index / per_second - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.send(frame)

    def receive(self, timeout=60):
        """The next frame, or None after `timeout` seconds."""
        self._socket.settimeout(max(timeout, 0.000001))
        try:
            return self._socket.recv(65536)
        except (TimeoutError, BlockingIOError):
            return None

    def receive_all(self, quiet=0.5):
        """All frames until none has come for `quiet` seconds."""
        return list(iter(lambda: self.receive(quiet), None))

    def expect(self, wanted, timeout=60, what="frame"):
        """The first frame for which `wanted(frame)` is true; others (a guest's own chatter) are dropped."""
        deadline = time.monotonic() + timeout
        seen = 0
        while (left := deadline - time.monotonic()) > 0:
            frame = self.receive(left)
            if frame is not None:
                if wanted(frame):
                    return frame
                seen += 1
        raise VMError(f"port {self.name}: no {what} in {timeout} s ({seen} other frames)")

    def close(self):
        """Closes the socket."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def vfio_user_device(path, addr=None, **properties):
    """QEMU's arguments for a PCI device that another process serves at the socket `path`.

    The guest needs `qemu="new"` and `shared_memory=True`.
    """
    device = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(path)}, **properties}
    # Milliseconds: QEMU gives a device up after 5 s without a reply, which a busy host can make of any server.
    device["x-msg-timeout"] = 120_000
    if addr:
        device["addr"] = addr
    return ["-device", json.dumps(device)]


def numa_bus(node, name="numa", number=64):
    """QEMU's arguments for a PCI Express root port on NUMA node `node`: give a NIC `bus=name`."""
    return [
        "-device", f"pxb-pcie,id={name}-host,bus_nr={number},numa_node={node},bus=pcie.0",
        "-device", f"pcie-root-port,id={name},bus={name}-host,chassis={number},slot=0",
    ]  # fmt: skip


# Guests


def qemu_command(which):
    """The command of Debian's QEMU ("system") or of the newer one ("new"), and its environment."""
    if which == "system":
        if not shutil.which("qemu-system-x86_64"):
            raise Skip("qemu-system-x86 is not installed; VM/setup says why")
        return ["qemu-system-x86_64"], {}
    usr = os.path.join(BUILD, "qemu-new", "usr")
    if not os.path.exists(os.path.join(BUILD, "qemu-new", "ready")):
        raise Skip("the newer QEMU could not be had; VM/setup says why")
    # Without it this QEMU would load the modules of the system's own.
    return (
        [f"{usr}/bin/qemu-system-x86_64", "-L", f"{usr}/share/qemu", "-L", f"{usr}/share/seabios"],
        {"QEMU_MODULE_DIR": "/nonexistent"},
    )


class Guest:
    """A running guest. `test` is its /test.sh, run by root after /lib.sh.

    - files: {guest path: bytes or host path}, added to base.cpio; `archives`: more cpio files.
    - devices: lists of QEMU arguments, as `Port.nic` and `vfio_user_device` make them.
    - memory in MiB; huge_pages of 2 MiB each, reserved at boot.
    - numa: the number of nodes that memory and processors are spread over.
    - log: the file for the guest's console.
    - timeout: the guest is killed after so many seconds; from `Env.guest`, a little before its scenario.
    """

    def __init__(self, test, *, directory, log, files=None, archives=(), devices=(), qemu="system",
                 smp=1, memory=512, huge_pages=0, viommu=False, shared_memory=False, numa=0,
                 cpu="max", append="", timeout=120):  # fmt: skip
        self.lines = []
        self.ended = False
        self._log = open(log, "w", errors="replace")
        self._changed = threading.Condition()
        self._monitor_path = tempfile.mktemp(prefix="qmp-", dir=directory)
        self._monitor = None
        self._initrd = tempfile.mktemp(prefix="initrd-", dir=directory)
        self._write_initrd(test, files or {}, archives)

        command, environment = qemu_command(qemu)
        command += ["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", str(smp)]
        command += ["-m", str(memory), *self._memory(memory, smp, shared_memory, numa)]
        command += ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]
        command += ["-serial", "stdio", "-device", "isa-debug-exit,iobase=0x501,iosize=1"]
        command += ["-qmp", f"unix:{self._monitor_path},server=on,wait=off"]
        command += ["-kernel", os.path.join(BUILD, "vmlinux"), "-initrd", self._initrd]
        # no_timer_check: on a busy host the emulated timer can come too late for the kernel's test of it.
        append = ("console=ttyS0 panic=-1 quiet mitigations=off no_timer_check "
                  f"hugepages={huge_pages} {append}")
        if viommu:
            # VFIO wants interrupt remapping; vfio-user wants to hear of new mappings (caching mode).
            command += ["-device", "intel-iommu,intremap=on,caching-mode=on"]
            append += " intel_iommu=on"
        command += ["-append", append]
        for device in devices:
            command += device if isinstance(device, (list, tuple)) else [device]
        self.command = command

        self._start = time.monotonic()
        self.process = spawn(command, env={**os.environ, **environment}, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        self._killer = threading.Timer(timeout, self._time_is_up, [timeout])
        self._killer.daemon = True
        self._killer.start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _write_initrd(self, test, files, archives):
        test = test if isinstance(test, bytes) else test.encode()
        with open(self._initrd, "wb") as initrd:
            for archive in (os.path.join(BUILD, "base.cpio"), *archives):
                with open(archive, "rb") as file:
                    shutil.copyfileobj(file, initrd)
            initrd.write(cpio({"/test.sh": test, **files}))

    @staticmethod
    def _memory(memory, smp, shared, numa):
        kind = "memory-backend-memfd,share=on" if shared else "memory-backend-ram"
        if numa:
            words = []
            for node in range(numa):
                words += ["-object", f"{kind},id=m{node},size={memory // numa}M"]
                first, last = node * smp // numa, (node + 1) * smp // numa - 1
                cpus = f",cpus={first}-{last}" if last >= first else ""
                words += ["-numa", f"node,nodeid={node},memdev=m{node}{cpus}"]
            return words
        if shared:
            return ["-object", f"{kind},id=m0,size={memory}M", "-machine", "memory-backend=m0"]
        return []

    def _read(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").rstrip("\r\n")
            self._note(line)
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _note(self, line):
        with self._changed:
            self._log.write(f"[{time.monotonic() - self._start:7.2f}] {line}\n")
            self._log.flush()
            self.lines.append(line)
            self._changed.notify_all()

    def _time_is_up(self, timeout):
        self._note(f"(killed: still running after {timeout} s)")
        self.process.kill()

    def tail(self, count=15):
        """The last lines of the console."""
        return "\n".join(self.lines[-count:])

    def wait_for(self, marker):
        """The first console line that contains `marker`, whenever it came.

        Throws VMError where the guest ends without one, at its time limit at the latest: a busy host has no
        other.
        """
        with self._changed:
            while True:
                for line in self.lines:
                    if marker in line:
                        return line
                if self.ended:
                    failed = [line for line in self.lines if "GUEST-FAILED" in line]
                    last = failed[-1] if failed else (self.lines or ["(nothing)"])[-1]
                    raise VMError(f"the guest ended before it said {marker!r}; it said: {last}")
                self._changed.wait(0.5)

    def type(self, line=""):
        """Types a line at the guest's console, where `read` of its test gets it."""
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def qmp(self, command, **arguments):
        """Gives QEMU's monitor a command and returns its answer."""
        if self._monitor is None:
            deadline = time.monotonic() + 60
            while self._monitor is None:
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(self._monitor_path)
                except OSError:
                    connection.close()
                    if self.ended or time.monotonic() > deadline:
                        raise VMError(f"QEMU has no monitor: {self.tail(3)}") from None
                    time.sleep(0.05)
                else:
                    connection.settimeout(60)
                    self._monitor = connection.makefile("rw")
                    connection.close()  # The file keeps the connection open.
            self._monitor.readline()  # The greeting.
            self.qmp("qmp_capabilities")
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self._monitor.write(json.dumps(message) + "\n")
        self._monitor.flush()
        for line in self._monitor:
            answer = json.loads(line)
            if "error" in answer:
                raise VMError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise VMError(f"QEMU ended during {command}")

    def set_link(self, port, up):
        """Pulls (up=False) or plugs in the cable of the NIC at a `Port`; the guest sees the link go."""
        # Said of the backend, the guest would not be told.
        self.qmp("set_link", name=port.name + "-nic", up=up)

    def finish(self):
        """Waits until the guest ends. Its test's exit status, or None where it never said one."""
        self.process.wait()
        self.kill()
        # QEMU itself exits 1 when it cannot start: only the guest's own last line counts.
        said = [line for line in self.lines if line.startswith("GUEST-STATUS ")]
        return int(said[-1].split()[1]) if said else None

    def expect_success(self):
        """Waits until the guest ends, and throws VMError unless its test exited with 0."""
        status = self.finish()
        if status != 0:
            failed = [line for line in self.lines if "GUEST-FAILED" in line]
            why = failed[-1] if failed else (self.lines or ["(nothing)"])[-1]
            raise VMError(f"the guest's test ended with {status}; it said: {why}")

    def kill(self):
        """Ends QEMU at once, if it still runs."""
        self._killer.cancel()
        end(self.process, ask=None)
        self._reader.join(5)
        self.seconds = time.monotonic() - self._start
        if self._monitor:
            with contextlib.suppress(OSError):
                self._monitor.close()
            self._monitor = None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._initrd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Env:
    """What a scenario works with: everything made through it ends with the scenario.

    - full: the counts of a full run, not the reduced ones.
    - ixy_static: the path of our statically linked program, for the guest.
    - directory: a folder for sockets and files, removed afterwards.
    """

    def __init__(self, name, directory, *, full=False, ixy_static=None, timeout=300):
        self.name = name
        self._timeout = timeout
        self.directory = directory
        self.full = full
        self.ixy_static = ixy_static
        self.guests = []
        self.servers = []
        self._stack = contextlib.ExitStack()

    def count(self, reduced, full):
        """One of two numbers, by the kind of run."""
        return full if self.full else reduced

    def beside_ixy(self, name):
        """The path of another statically linked program, which `make static` puts beside ixy."""
        path = os.path.join(os.path.dirname(self.ixy_static), name)
        if not os.access(path, os.X_OK):
            raise VMError(f"there is no {path}; run: make static")
        return path

    def path(self, name):
        """The path of a file or socket in the scenario's own folder."""
        return os.path.join(self.directory, name)

    def log(self, name):
        """The path of a file that is kept after the scenario."""
        return os.path.join(LOGS, f"{self.name}.{name}")

    def port(self, name):
        """A `Port`."""
        return self._stack.enter_context(Port(name, self.directory))

    def server(self, command, sockets=(), **options):
        """A `Server`; its output is kept as NAME.server1.out and .err."""
        server = Server(command, sockets, log=self.log(f"server{len(self.servers) + 1}"), **options)
        self.servers.append(server)
        return self._stack.enter_context(server)

    def guest(self, test, **options):
        """A `Guest`; its console is kept as NAME.guest1.log."""
        log = self.log(f"guest{len(self.guests) + 1}.log")
        # Before the scenario's own end, so that the console tells.
        options.setdefault("timeout", self._timeout - 15)
        guest = Guest(test, directory=self.directory, log=log, **options)
        self.guests.append(guest)
        return self._stack.enter_context(guest)

    def dpdk(self):
        """The path of the archive with DPDK's testpmd, for a guest's `archives`."""
        return os.path.join(BUILD, "dpdk.cpio")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.__exit__(*error)
