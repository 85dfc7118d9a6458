"""Several queue pairs of virtio-net at once, and how many packets a second QEMU's card and our driver do."""

import ctypes
import os
import re
import socket
import struct
import subprocess

import frames
from virtio import HOST, SERVE, STRANGER, card, card_mac
from vm import Skip, VMError, needs

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
ADDRESSES = frames.ip("10.0.0.1"), frames.ip("10.0.0.2")
FLOWS = 64
# As many frames as may be on their way: fewer than a ring has room for.
WINDOW = 100


def leave_network():
    """Gives this process, and all that it starts, a network of its own, which ends with it."""
    if os.geteuid() != 0:
        raise Skip("a tap interface takes root")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise VMError(f"no network namespace: {os.strerror(ctypes.get_errno())}")


class Tap:
    """A tap interface of QEMU's, with a queue for each of a card's pairs, and the host's end of it."""

    def __init__(self, name, queues):
        self.name = name
        self.queues = queues
        self._socket = None

    def nic(self, slot, vnet_hdr="on", **properties):
        """QEMU's arguments for a card at this tap."""
        words = {"mq": "on", "vectors": 2 * self.queues + 2, "romfile": "", "disable-legacy": "on", **properties}
        listed = ",".join(f"{key}={value}" for key, value in words.items())
        return [
            "-netdev", f"tap,id={self.name},ifname={self.name},script=no,downscript=no,vhost=off,"
            f"queues={self.queues},vnet_hdr={vnet_hdr}",
            "-device", f"virtio-net-pci,netdev={self.name},addr={slot:x},mac={card_mac(slot)},{listed}",
        ]  # fmt: skip

    def open(self):
        """Brings the interface up, quietly, once QEMU has made it."""
        for words in (["sysctl", "-qw", f"net.ipv6.conf.{self.name}.disable_ipv6=1"],
                      ["ip", "link", "set", self.name, "up"]):  # fmt: skip
            subprocess.run(words, check=True)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((self.name, 0))

    def send(self, frame):
        self._socket.send(frame)

    def receive(self, timeout):
        """The next frame from the card; throws after `timeout` seconds."""
        self._socket.settimeout(timeout)
        while True:
            frame, (_, _, kind, *_) = self._socket.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING:
                return frame


def flow_frame(number):
    """A UDP frame, different for each number, of one of many flows."""
    body = struct.pack("!I", number) + bytes((number * 31 + i) & 0xFF for i in range(14 + number % 1400))
    return frames.udp(STRANGER, HOST, *ADDRESSES, body, (1000 + number % FLOWS, 9))


def pass_flows(source, target, count):
    """Every frame comes out once, byte for byte; those of a flow in their order."""
    sent, last = 0, [flow - FLOWS for flow in range(FLOWS)]
    for passed in range(count):
        while sent < count and sent - passed < WINDOW:
            source.send(flow_frame(sent))
            sent += 1
        try:
            found = target.receive(30)
        except TimeoutError:
            raise VMError(f"{source.name}: {passed} of {sent} frames came out") from None
        number = int.from_bytes(found[42:46], "big")
        flow = number % FLOWS
        if number != last[flow] + FLOWS or found != flow_frame(number):
            raise VMError(f"{source.name}: behind frame {last[flow]} came {number}, {len(found)} bytes")
        last[flow] = number


@needs("ixy_static", timeout=400)
def scenario_virtio_queues(env):
    """Two queue pairs of virtio-net at taps, split with vnet headers and packed without: each carries flows."""
    leave_network()
    taps = [Tap(name, queues=2) for name in ("tap-a", "tap-b")]
    guest = env.guest(
        SERVE + f"serve fwd --queues 2 {card(4)} {card(5)}",
        files={"/bin/ixy": env.ixy_static}, huge_pages=64, smp=2,
        devices=[taps[0].nic(4), taps[1].nic(5, packed="on", vnet_hdr="off")],
    )  # fmt: skip
    guest.wait_for("READY-1 ", timeout=120)
    for tap in taps:
        tap.open()
    pass_flows(*taps, env.count(2000, 100_000))
    pass_flows(*reversed(taps), env.count(2000, 100_000))
    guest.type()
    guest.expect_success(timeout=90)
    check_queues(guest.lines, len(taps))


def check_queues(lines, cards):
    """What the forwarder says at its end: each queue of each card has received and sent, and nothing was wrong."""
    end = lines[max(i for i, line in enumerate(lines) if "queue 0: received" in line) - 4 :]
    queues = re.findall(r"queue \d: received (\d+) packets .*, sent (\d+) ", "\n".join(end))
    if len(queues) != 2 * cards or min(int(count) for queue in queues for count in queue) < 20:
        raise VMError(f"of queues, received and sent: {queues}: not each carries traffic")
    if len([line for line in end if " 0 errors" in line]) != cards:
        raise VMError(f"frames were received in error: {end}")


def hub(number, directory):
    """QEMU's arguments for a hub with a wire whose other end nobody has: a hub takes no frames for nobody."""
    path = f"{directory}/hub{number}"
    return [
        "-netdev", f"dgram,id=wire{number},local.type=unix,local.path={path},remote.type=unix,remote.path={path}-none",
        "-netdev", f"hubport,id=end{number},hubid={number},netdev=wire{number}",
    ]  # fmt: skip


def hub_card(slot, number, **properties):
    """QEMU's arguments for a card at a hub."""
    listed = ",".join(f"{key}={value}" for key, value in properties.items())
    return [
        "-netdev", f"hubport,id=port{slot},hubid={number}",
        "-device", f"virtio-net-pci,netdev=port{slot},addr={slot:x},romfile=,disable-legacy=on,{listed}",
    ]  # fmt: skip


# rates NAME GENERATOR IN OUT: what a guest does at most: frames into a hub, alone, and then to a forwarder there.
RATES = """
rates() {
  echo "START pktgen $1"
  ixy pktgen $2 --duration 10s >/out 2>&1 || fail "ixy pktgen: $(cat /out)"
  echo "END pktgen $1: $(tail -1 /out)"
  ixy fwd $3 $4 >/forwarded 2>&1 &
  _job=$!
  wait_until 30 grep -q " rx " /forwarded || fail "ixy fwd: $(cat /forwarded)"
  echo "START fwd $1"
  ixy pktgen $2 --duration 10s >/out || fail "ixy pktgen: $(cat /out)"
  kill -INT $(pidof ixy)
  wait $_job
  echo "END fwd $1: $(tail -1 /forwarded)"
}
"""


@needs("ixy_static", timeout=400)
def scenario_virtio_rates(env):
    """Packets a second of virtio-net, generated and forwarded: kept in the log's folder, and not judged."""
    test, devices = "", []
    for name, slot, properties in (("split", 4, {"packed": "off"}), ("packed", 7, {"packed": "on"})):
        devices += [hub(slot, env.directory), hub(slot + 1, env.directory)]
        devices += [hub_card(slot + i, slot + i // 2, **properties) for i in range(3)]
        test += f"rates {name} {' '.join(card(slot + i) for i in range(3))}\n"
    guest = env.guest(
        RATES + test, files={"/bin/ixy": env.ixy_static}, devices=devices, huge_pages=64, smp=2,
    )  # fmt: skip
    with open(env.log("rates"), "w") as file:
        for name in ("split", "packed"):
            for what in ("pktgen", "fwd"):
                guest.wait_for(f"START {what} {name}", timeout=120)
                start = processor_time(guest.process.pid)
                line = guest.wait_for(f"END {what} {name}", timeout=120)
                spent = processor_time(guest.process.pid) - start
                count, seconds = re.search(r"sent (\d+) .* in ([\d.]+) s", line).groups()
                if int(count) == 0:
                    raise VMError(f"nothing was sent: {line}")
                file.write(f"{what} {name}: {int(count)} frames in {seconds} s, {int(count) / spent:.0f} in one of "
                           f"QEMU's processor time, which was {spent:.1f} s\n")  # fmt: skip
    guest.expect_success(timeout=60)


def processor_time(process):
    """The seconds that all threads of a process have run for."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
