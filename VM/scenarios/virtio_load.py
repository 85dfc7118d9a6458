"""Several queue pairs of virtio-net at once, and how many packets a second QEMU's card and our driver do."""

import ctypes
import os
import re
import socket
import struct
import subprocess

import frames
from virtio import HOST, SERVE, STRANGER, card, card_mac
from vm import VMError, needs

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
ADDRESSES = frames.ip("10.0.0.1"), frames.ip("10.0.0.2")
FLOWS = 64
# As many frames as may be on their way: fewer than a ring has room for.
WINDOW = 100


def leave_network():
    """Gives this process, and all that it starts, a network of its own, which ends with it."""
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
        """Brings the interface up, once QEMU has made it."""
        subprocess.run(["ip", "link", "set", self.name, "up"], check=True)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        # The default has no room for WINDOW frames, should this process not get to run for a while.
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._socket.bind((self.name, 0))

    def send(self, frame):
        self._socket.send(frame)

    def receive(self, timeout):
        """The next frame of ours from the card, none of the host's own chatter; throws after `timeout` seconds."""
        self._socket.settimeout(timeout)
        while True:
            frame, (_, _, kind, *_) = self._socket.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING and frame[6:12] == HOST:
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
            found = target.receive(60)
        except TimeoutError:
            raise VMError(f"{source.name}: {passed} of {sent} frames came out") from None
        number = int.from_bytes(found[42:46], "big")
        flow = number % FLOWS
        if number != last[flow] + FLOWS or found != flow_frame(number):
            raise VMError(f"{source.name}: behind frame {last[flow]} came {number}, {len(found)} bytes")
        last[flow] = number


@needs("ixy_static", "tap", timeout=600)
def scenario_virtio_queues(env):
    """Two queue pairs of virtio-net at taps, split with vnet headers and packed without: each carries flows."""
    leave_network()
    taps = [Tap(name, queues=2) for name in ("tap-a", "tap-b")]
    guest = env.guest(
        SERVE + f"serve fwd --queues 2 {card(4)} {card(5)}",
        files={"/bin/ixy": env.ixy_static}, huge_pages=64, smp=2,
        devices=[taps[0].nic(4), taps[1].nic(5, packed="on", vnet_hdr="off")],
    )  # fmt: skip
    guest.wait_for("READY-1 ")
    for tap in taps:
        tap.open()
    pass_flows(*taps, env.count(2000, 100_000))
    pass_flows(*reversed(taps), env.count(2000, 100_000))
    guest.type()
    guest.expect_success()
    check_queues(guest.lines, len(taps))


def check_queues(lines, cards):
    """What the forwarder says at its end: each queue of each card has received and sent, and nothing was wrong."""
    end = lines[max(i for i, line in enumerate(lines) if "queue 0: received" in line) - 4 :]
    queues = re.findall(r"queue \d: received (\d+) packets .*, sent (\d+) ", "\n".join(end))
    if len(queues) != 2 * cards or min(int(count) for queue in queues for count in queue) < 20:
        raise VMError(f"of queues, received and sent: {queues}: not each carries traffic")
    if len([line for line in end if " 0 errors" in line]) != cards:
        raise VMError(f"frames were received in error: {end}")


def hub(number):
    """QEMU's arguments for a hub with a port that nothing is plugged into.

    Without one a hub takes no frames while nobody listens; one with a socket costs a system call a frame.
    """
    return ["-netdev", f"hubport,id=end{number},hubid={number}"]


def hub_card(slot, number, **properties):
    """QEMU's arguments for a card at a hub."""
    listed = ",".join(f"{key}={value}" for key, value in properties.items())
    return [
        "-netdev", f"hubport,id=port{slot},hubid={number}",
        "-device", f"virtio-net-pci,netdev=port{slot},addr={slot:x},romfile=,disable-legacy=on,{listed}",
    ]  # fmt: skip


# rates NAME GENERATOR IN OUT: what a guest does at most: frames into a hub, alone, and then to a forwarder there.
# stranger NAME CARD: the same by Linux's driver and its generator, which sends one frame again and again, 32 at a time.
RATES = """
rates() {
  echo "START pktgen $1"
  ixy pktgen $2 --duration 10s >/out 2>&1 || fail "ixy pktgen: $(cat /out)"
  echo "END pktgen $1: $(tail -1 /out)"
  ixy fwd $3 $4 >/forwarded 2>&1 &
  _job=$!
  wait_until 60 grep -q " rx " /forwarded || fail "ixy fwd: $(cat /forwarded)"
  echo "START fwd $1"
  ixy pktgen $2 --duration 10s >/out || fail "ixy pktgen: $(cat /out)"
  kill -INT $(pidof ixy)
  wait $_job
  echo "END fwd $1: $(tail -1 /forwarded)"
}
stranger() {
  load virtio_pci virtio_net pktgen
  _name=$(interface $2) || exit 1
  up $_name
  echo rem_device_all >/proc/net/pktgen/kpktgend_0
  echo "add_device $_name" >/proc/net/pktgen/kpktgend_0
  for _word in "count 500000" "pkt_size 60" "clone_skb 1000000" "burst 32" "delay 0"; do
    echo "$_word" >/proc/net/pktgen/$_name || fail "Linux's pktgen refuses $_word"
  done
  echo "START linux $1"
  echo start >/proc/net/pktgen/pgctrl
  # Result: OK: 4187715(c4185527+d2188) usec, 400012 (60byte,0frags)
  echo "END linux $1: $(sed -n 's/Result: OK: \\([0-9]*\\).* usec, \\([0-9]*\\) .*/sent \\2 in \\1 us/p' /proc/net/pktgen/$_name)"
}
"""


@needs("ixy_static", timeout=600)
def scenario_virtio_rates(env):
    """Packets a second of virtio-net, ours and Linux's: kept in the log's folder, and not judged."""
    names = {"split": 4, "packed": 7}
    test, devices = "", []
    for name, slot in names.items():
        devices += [hub(slot), hub(slot + 1)]
        devices += [hub_card(slot + i, slot + i // 2, packed="on" if name == "packed" else "off") for i in range(3)]
        test += f"rates {name} {' '.join(card(slot + i) for i in range(3))}\n"
    # Last: it takes all cards.
    test += "".join(f"stranger {name} {card(slot)}\n" for name, slot in names.items())
    # Without, each look at the clock leaves the emulated processor, and waits for QEMU to have moved some frames.
    guest = env.guest(
        RATES + test, files={"/bin/ixy": env.ixy_static}, devices=devices, huge_pages=64, smp=2,
        append="tsc=reliable clocksource=tsc",
    )  # fmt: skip
    runs = [(what, name) for name in names for what in ("pktgen", "fwd")] + [("linux", name) for name in names]
    with open(env.log("rates"), "w") as file:
        for what, name in runs:
            guest.wait_for(f"START {what} {name}")
            start = processor_time(guest.process.pid)
            line = guest.wait_for(f"END {what} {name}")
            spent = processor_time(guest.process.pid) - start
            count, time, unit = re.search(r"sent (\d+) .*in ([\d.]+) (us|s)", line).groups()
            if int(count) == 0:
                raise VMError(f"nothing was sent: {line}")
            seconds = float(time) / (1e6 if unit == "us" else 1)
            file.write(f"{what} {name}: {int(count) / seconds:.0f} frames a second, {int(count) / spent:.0f} in one of "
                       f"QEMU's processor time, of which it had {spent / seconds:.1f} processors\n")  # fmt: skip
    guest.expect_success()


def processor_time(process):
    """The seconds that all threads of a process have run for."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
