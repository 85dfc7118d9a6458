"""Our virtio driver in a guest, against QEMU's own card in each of its shapes."""

import base64
import re
import struct
import time

import frames
from vm import VMError, needs

HOST = frames.mac("02:00:00:00:00:01")
STRANGER = frames.mac("02:00:00:00:00:02")

# What QEMU is told of the two cards of each shape. The second ones lack what old or small devices lack.
LEGACY = ({"disable_modern": "on"}, {"disable_modern": "on", "any_layout": "off", "ctrl_vq": "off"})
TRANSITIONAL = ({}, {"event_idx": "off"})
SPLIT = ({"disable_legacy": "on"}, {"disable_legacy": "on", "event_idx": "off", "mrg_rxbuf": "off"})
PACKED = (
    {"disable_legacy": "on", "packed": "on"},
    {"disable_legacy": "on", "packed": "on", "event_idx": "off"},
)
# As many frames as may be on their way: fewer than the smallest ring of a card has room for.
WINDOW = 100

# serve WORDS...: runs ixy until the host types a line. $as is empty, or makes it an ordinary user's. Before
# that, "look" tells of interrupts and links.
SERVE = """
turn=0
looks=0
serve() {
  # What the last command wrote would be taken for this one's.
  rm -f /out
  $as ixy "$@" >/out 2>&1 &
  _job=$!
  wait_until 60 grep -q " rx " /out || fail "ixy $*: $(cat /out)"
  turn=$((turn + 1))
  echo "READY-$turn ixy $*"
  while read word && [ "$word" = look ]; do
    looks=$((looks + 1))
    echo "LOOK-$looks $(awk '/vfio-/ { print $NF "=" $2 }' /proc/interrupts) $(grep -o 'link [a-z]*' /out)" |
      tr '\n' ' '
    echo
  done
  kill -INT $(pidof ixy)
  wait $_job || fail "ixy $* ended with $?: $(tail -3 /out)"
  tail -6 /out
}
# captured NAME OPTION...: has ixy dump write some frames, and shows them to the host.
captured() {
  _name=$1; shift
  rm -f /out
  $as ixy dump "$@" -w /tmp/capture >/out 2>&1 &
  _job=$!
  wait_until 60 grep -q " rx " /out || fail "ixy dump $*: $(cat /out)"
  echo "CAPTURING-$_name"
  wait $_job || fail "ixy dump $* ended with $?: $(cat /out)"
  echo "CAPTURED-$_name $(base64 /tmp/capture | tr -d '\\n')"
}
# generated OPTION...: has ixy pktgen send some frames.
generated() {
  rm -f /out
  $as ixy pktgen "$@" >/out 2>&1 || fail "ixy pktgen $*: $(cat /out)"
  tail -1 /out
}
"""


def card(slot):
    """The address of the card in a slot."""
    return f"0000:00:{slot:02x}.0"


def card_mac(slot):
    """The MAC address that we give to the card in a slot."""
    return f"52:54:00:00:00:{slot:02x}"


def pair(env, slot, properties, **more):
    """Two cards, in a slot and the next. Returns their ports, and QEMU's arguments."""
    ports = [env.port(f"p{slot + i}") for i in range(2)]
    devices = [
        port.nic("virtio-net-pci", mac=card_mac(slot + i), addr=hex(slot + i)[2:], **own, **more)
        for i, (port, own) in enumerate(zip(ports, properties))
    ]
    return ports, devices


def numbered(number, size, destination=STRANGER):
    """A frame of `size` bytes, from 14 on, different for each number."""
    body = struct.pack("!I", number) + bytes((number * 31 + i * 7) & 0xFF for i in range(size))
    return (destination + HOST + b"\x88\xb5" + body)[:size]


def pass_all(source, target, sent, window=WINDOW, pause=0):
    """Sends frames, never more than `window` ahead of what has come out: in order, byte for byte."""
    ahead = 0
    for number, wanted in enumerate(sent):
        time.sleep(pause)
        while ahead < len(sent) and ahead - number < window:
            source.send(sent[ahead])
            ahead += 1
        found = target.receive()
        if found != wanted:
            what = "nothing" if found is None else f"{len(found)} other bytes"
            raise VMError(f"{source.name}: frame {number} ({len(wanted)} bytes) came out as {what}")
    if extra := target.receive(0.01):
        raise VMError(f"{source.name}: another frame came out, of {len(extra)} bytes")


def every_length():
    """One frame of each length that Ethernet has, without padding."""
    return [numbered(size, size) for size in range(14, 1515)]


def check_forwarding(env, ports, many):
    """Frames of every length both ways, and then many."""
    one, two = ports
    every = every_length()
    pass_all(one, two, every)
    pass_all(two, one, every)
    pass_all(one, two, [numbered(i, 60 + i % 200) for i in range(many)])


def expect_promiscuous(guest, port, wanted):
    """QEMU itself says whether the card's filter is off."""
    found = guest.qmp("query-rx-filter", name=port.name + "-nic")[0]["promiscuous"]
    if found != wanted:
        raise VMError(f"{port.name}: promiscuous is {found}")


def check_generated(port, count):
    """Every frame of ixy pktgen comes once, in order."""
    for number in range(count):
        frame = port.receive()
        if frame is None:
            raise VMError(f"{port.name}: only {number} of {count} generated frames came")
        if len(frame) != 60 or int.from_bytes(frame[46:54], "big") != number:
            raise VMError(f"{port.name}: generated frame {number} is another: {frame.hex()}")


# What a card is sent in check_capture, by who it is for; the last one is not filtered out, so that the
# capture ends there.
VISITORS = ["stranger", "card", "stranger", "broadcast", "stranger", "card"]


def check_capture(guest, port, slot, name, promiscuous=True):
    """What ixy dump has written is what the card was sent, as far as it is for the card."""
    goals = {"stranger": STRANGER, "card": frames.mac(card_mac(slot)), "broadcast": frames.BROADCAST}
    sent = [numbered(i, 60 + 200 * i, goals[who]) for i, who in enumerate(VISITORS)]
    # Not before: the forwarder would have them, or nobody.
    guest.wait_for(f"CAPTURING-{name}")
    for frame in sent:
        port.send(frame)
    line = guest.wait_for(f"CAPTURED-{name} ")
    wanted = [frame for frame in sent if promiscuous or frame[:6] != STRANGER]
    found = pcap_frames(base64.b64decode(line.split()[1]))
    if found != wanted:
        raise VMError(f"{name}: captured {len(found)} frames of {[len(one) for one in found]} bytes")


def pcap_frames(data):
    """The frames of a capture file."""
    found, at = [], 24
    while at < len(data):
        kept = struct.unpack_from("<I", data, at + 8)[0]
        found.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return found


def exercise(name, first, options=""):
    """The guest's part for one pair of cards: fwd on both, dump and pktgen on the first."""
    one, two = card(first), card(first + 1)
    return f"""
    serve fwd {one} {two} {options}
    captured {name}-all {one} -c {len(VISITORS)}
    captured {name}-own {one} -p -c {len([who for who in VISITORS if who != "stranger"])}
    generated {one} --count $generated
    """


def check(env, guest, turn, name, ports, first, more=None):
    """The host's part of `exercise`; `more` is done while the forwarder runs."""
    guest.wait_for(f"READY-{turn} ")
    check_forwarding(env, ports, env.count(1000, 100_000))
    if name != "legacy":
        for port in ports:
            expect_promiscuous(guest, port, True)
    if more:
        more()
    guest.type()
    check_capture(guest, ports[0], first, f"{name}-all")
    check_capture(guest, ports[0], first, f"{name}-own", promiscuous=False)
    check_generated(ports[0], env.count(1000, 100_000))


@needs("ixy_static", timeout=900)
def scenario_virtio_shapes(env):
    """Legacy, transitional and modern virtio-net, over sysfs: fwd, dump and pktgen, byte for byte."""
    shapes = {"legacy": LEGACY, "transitional": TRANSITIONAL, "split": SPLIT, "packed": PACKED}
    test, devices, all_ports = "", [], []
    for i, (name, properties) in enumerate(shapes.items()):
        ports, arguments = pair(env, 4 + 2 * i, properties)
        devices += arguments
        all_ports.append(ports)
        test += exercise(name, 4 + 2 * i)
    guest = env.guest(
        f"generated={env.count(1000, 100_000)}\n" + SERVE + test,
        files={"/bin/ixy": env.ixy_static}, devices=devices, huge_pages=32, timeout=840,
    )  # fmt: skip
    for i, name in enumerate(shapes):
        check(env, guest, i + 1, name, all_ports[i], 4 + 2 * i)
    guest.expect_success()


# What QEMU is told of cards for long frames: a legacy one has their number of buffers in a longer header.
LONG = ({"disable_modern": "on"}, {"disable_legacy": "on"}, {"disable_legacy": "on", "packed": "on"})


@needs("ixy_static", timeout=400)
def scenario_virtio_jumbo(env):
    """Frames of up to 9,018 bytes, which QEMU spreads over several buffers of 2,048, come back byte for byte."""
    test, devices, ports = "", [], []
    for slot, properties in enumerate(LONG, start=4):
        port = env.port(f"p{slot}")
        ports.append(port)
        devices.append(port.nic("virtio-net-pci", addr=f"{slot:x}", host_mtu=9000, **properties))
        test += f"nictest echo {card(slot)} --mtu 9000 || fail 'nictest echo'\n"
    guest = env.guest(
        test, files={"/bin/nictest": env.beside_ixy("nictest")}, devices=devices, huge_pages=64,
    )  # fmt: skip
    for slot, port in enumerate(ports, start=4):
        guest.wait_for(f"READY {card(slot)}")
        # All over, and around the ends of one to four buffers: only the first of a frame has a header.
        edges = [2060 * count - 12 + i for count in range(1, 5) for i in (-1, 0, 1)]
        sent = [numbered(i, size) for i, size in enumerate([*range(14, 9018, 97), *edges, 9017, 9018])]
        pass_all(port, port, sent * env.count(1, 50), window=8)
        last = STRANGER + HOST + b"\x88\xb6" + bytes(46)
        pass_all(port, port, [last])
        line = guest.wait_for(f"STATISTICS {card(slot)}")
        if "receiveErrors: 0" not in line:
            raise VMError(f"{card(slot)}: {line}")
    guest.expect_success()


class Looks:
    """What a forwarder in the guest says of interrupts and links, when it is asked."""

    def __init__(self, guest):
        self.guest = guest
        self.count = 0

    def line(self):
        self.guest.type("look")
        self.count += 1
        return self.guest.wait_for(f"LOOK-{self.count} ")

    def interrupts(self, slot):
        """{vector: how often it came} of the card in a slot; the line's name is "intx"."""
        pattern = rf"vfio-(\S+?)\({card(slot)}\)=(\d+)"
        return {name: int(count) for name, count in re.findall(pattern, self.line())}

    def wait_for(self, *words):
        """Waits until these are the last things that were said of links."""
        wanted = [f"link {word}" for word in words]
        for _ in range(600):
            line = self.line()
            if re.findall(r"link \w+", line)[-len(wanted) :] == wanted:
                return
            time.sleep(0.1)
        raise VMError(f"the guest never said {wanted}: {line}")


def check_interrupts(guest, looks, ports, first):
    """Each frame after a pause interrupts, and so does each change of the link; nothing else does."""
    queue, config = ("intx", "intx") if first % 2 else ("msix[0]", "msix[1]")
    source, target = ports if first % 2 == 0 else reversed(ports)
    before = looks.interrupts(first)
    pass_all(source, target, [numbered(i, 60) for i in range(100)], window=1, pause=0.03)
    after = looks.interrupts(first)
    came = after[queue] - before[queue]
    # Those that came while the forwarder was still awake are not signalled.
    if not 50 <= came <= 110:
        raise VMError(f"{card(first)}: {came} interrupts for 100 frames")
    for up in (False, True):
        guest.set_link(source, up)
        looks.wait_for("up" if up else "down")
    changed = looks.interrupts(first)[config] - after[config]
    if not 2 <= changed <= 10:
        raise VMError(f"{card(first)}: {changed} interrupts for 2 changes of the link")
    pass_all(source, target, [numbered(i, 60) for i in range(20)])


@needs("ixy_static", timeout=900)
def scenario_virtio_iommu(env):
    """virtio-net behind the virtual IOMMU, through VFIO as uid 1000: split and packed, asleep between frames."""
    behind = {"iommu_platform": "on", "disable_legacy": "on"}
    # The second card of each pair has no MSI-X.
    split = ({}, {"vectors": "0", "event_idx": "off"})
    packed = ({"packed": "on"}, {"packed": "on", "event_idx": "off", "vectors": "0"})
    test, devices, all_ports = "", [], []
    for i, (name, properties) in enumerate({"split": split, "packed": packed}.items()):
        ports, arguments = pair(env, 4 + 2 * i, properties, **behind)
        devices += arguments
        all_ports.append(ports)
        test += exercise(name, 4 + 2 * i, "--interrupts on")
    cards = " ".join(card(slot) for slot in range(4, 8))
    guest = env.guest(
        f"""
        generated={env.count(1000, 100_000)}
        as=as_user
        for card in {cards}; do bind_vfio $card; done
        """ + SERVE + test,
        files={"/bin/ixy": env.ixy_static}, devices=devices, viommu=True, huge_pages=64, timeout=840,
    )  # fmt: skip
    looks = Looks(guest)

    def more(ports, first):
        check_interrupts(guest, looks, ports, first)
        check_interrupts(guest, looks, ports, first + 1)

    for i, name in enumerate(["split", "packed"]):
        slot = 4 + 2 * i
        check(env, guest, i + 1, name, all_ports[i], slot, lambda: more(all_ports[i], slot))
    guest.expect_success()
