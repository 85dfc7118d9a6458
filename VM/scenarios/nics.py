"""Our drivers for e1000e, igb and vmxnet3 meet QEMU's cards, in guests."""

import json
import random
import re
import struct
import time

import frames
from vm import VMError, needs

# QEMU's igb puts its virtual functions 16 and 17 slots above its own.
SLOTS = {"igb": (4, 6), "e1000e": (8, 9), "vmxnet3": (10, 11), "virtio-net-pci": (12, 13)}
DRIVERS = {"igb": "igb", "e1000e": "e1000e", "vmxnet3": "vmxnet3", "virtio-net-pci": "virtio"}
QUEUES = {"igb": 2, "e1000e": 2}
# Two addresses that no card has.
THEIRS = [frames.mac("02:00:00:00:00:01"), frames.mac("02:00:00:00:00:02")]
# Frames are numbered in the four bytes after their type; frames of the other type end a test.
NUMBERED, LAST = 0x88B5, 0x88B6

# The guest does what the host types, and says what became of it.
GUEST = """
number=0
# forward OPTION...: starts the forwarder, and waits until it runs.
forward() {
  # What the last one wrote would be taken for its own.
  rm -f /out /err
  $run ixy fwd "$@" --json >/out 2>/err &
  wait_until 60 grep -q stats /out || fail "ixy fwd $*: $(cat /out /err)"
  # With guardians there are several: the first is who started them.
  forwarder=$(ps | grep "[i]xy fwd" | awk '{print $1}' | head -1)
}
# ended: ends the forwarder; what it wrote follows.
ended() {
  kill -TERM $forwarder
  wait_until 60 test ! -e /proc/$forwarder || fail "the forwarder does not end: $(cat /out /err)"
  cat /err; grep summary /out || fail "it did not end well: $(tail -n 3 /out)"
}
# ticks: the processor time that the forwarder has used, in hundredths of a second. Without braces it would be ${1}2.
ticks() { set -- $(sed 's/.*) //' /proc/$forwarder/stat); echo $((${12} + ${13})); }
# check OPTION...: starts the program for one card; it runs until its last frame.
check() {
  rm -f /check
  $run nictest "$@" >/check 2>&1 & checker=$!
  wait_until 60 grep -q READY /check || fail "nictest $*: $(cat /check)"
}
# checked: what it found.
checked() { wait $checker || fail "nictest: $(cat /check)"; cat /check; }
echo READY
while read -r line; do
  number=$((number + 1))
  [ "$line" != end ] || break
  eval "$line"
  echo "DONE-$number $?"
done
"""


class Cards:
    """A guest with `count` cards of each model, and one way to them: "vfio" or "sysfs"."""

    def __init__(self, env, models, way, count=2):
        self.env, self.way, self.commands = env, way, 0
        self.ports = {model: [env.port(f"{model}{i}") for i in range(count)] for model in models}
        devices = []
        for model, ports in self.ports.items():
            extra = {"iommu_platform": "on", "disable_legacy": "on"} if "virtio" in model else {}
            for i, (port, slot) in enumerate(zip(ports, SLOTS[model])):
                devices.append(port.nic(model, mac=self.mac(model, i), addr=f"{slot:x}", **extra))
        self.guest = env.guest(
            ("run=as_user\nload vfio_iommu_type1 vfio-pci\n" if way == "vfio" else "run=\n") + GUEST,
            qemu="new", viommu=way == "vfio", memory=768, huge_pages=96, devices=devices,
            files={"/bin/ixy": env.ixy_static, "/bin/nictest": env.beside_ixy("nictest")},
            timeout=1500,
        )  # fmt: skip
        self.guest.wait_for("READY")
        if way == "vfio":
            for model in models:
                for card in self.addresses(model):
                    self.run(f"ixy bind --user 1000 {card} && chmod 666 /dev/vfio/vfio")

    def addresses(self, model):
        return [f"0000:00:{slot:02x}.0" for slot, _ in zip(SLOTS[model], self.ports[model])]

    @staticmethod
    def mac(model, i):
        return f"52:54:00:00:00:{SLOTS[model][i]:02x}"

    def run(self, command):
        """Runs a command in the guest and returns the lines that it wrote; throws where it fails."""
        self.commands += 1
        start = len(self.guest.lines)
        self.guest.type(command)
        last = self.guest.wait_for(f"DONE-{self.commands} ")
        lines = self.guest.lines[start:]
        lines = lines[: lines.index(last)]
        if last.split()[1] != "0":
            raise VMError(f"in the guest, {command!r} ended with {last.split()[1]}: {lines[-3:]}")
        return lines

    def finish(self):
        self.guest.type("end")
        self.guest.expect_success()


def numbered(number, length, destination=THEIRS[1], vlan=None):
    """A frame of `length` bytes, unlike any other."""
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    head = destination + THEIRS[0] + tag + struct.pack("!HI", NUMBERED, number)
    return head + random.Random(number).randbytes(length - len(head))


def cross(sender, receiver, sent, window=128):
    """Sends frames, some ahead of what has come out; throws unless they come out in order, byte for byte."""
    first = 0
    for number, frame in enumerate(sent):
        if number - first >= window:
            first = take(receiver, sent, first)
        sender.send(frame)
    while first < len(sent):
        first = take(receiver, sent, first)
    if (more := receiver.receive(0.05)) is not None:
        raise VMError(f"port {receiver.name}: a frame that nobody sent: {more[:32].hex()}")


def take(receiver, sent, number):
    found = receiver.receive()
    if found != sent[number]:
        what = "nothing" if found is None else f"{len(found)} other bytes: {found[:32].hex()}"
        raise VMError(f"port {receiver.name}: frame {number} of {len(sent)} came out as {what}")
    return number + 1


class Account:
    """What went through a forwarder between two ports, to be compared with what it counted."""

    def __init__(self, ports):
        self.ports = ports
        self.expected = [{"rx": [0, 0], "tx": [0, 0]} for _ in ports]

    def cross(self, sent, back=False):
        sides = (1, 0) if back else (0, 1)
        cross(self.ports[sides[0]], self.ports[sides[1]], sent)
        for side, kind in zip(sides, ("rx", "tx")):
            self.expected[side][kind][0] += len(sent)
            self.expected[side][kind][1] += sum(map(len, sent))

    def check(self, lines):
        summary = json.loads([line for line in lines if '"summary"' in line][-1])
        for port, expected in zip(summary["ports"], self.expected):
            wanted = {f"{kind}_{what}": number for kind, pair in expected.items()
                      for what, number in zip(("packets", "bytes"), pair)}  # fmt: skip
            wanted |= {"rx_dropped": 0, "tx_dropped": 0, "rx_errors": 0}
            found = {name: port[name] for name in wanted}
            if found != wanted:
                raise VMError(f"{port['name']} counted {found}, and not {wanted}")


# What is shown, step by step


def lengths(cards, one, two, ports, options=""):
    """Frames of every length cross both ways, byte for byte, many more are not lost, and all are counted."""
    cards.run(f"forward {one} {two} {options}")
    account = Account(ports)
    every = [numbered(length, length) for length in range(60, 1515)]
    account.cross(every)
    account.cross(every, back=True)
    count = cards.env.count(2000, 100_000)
    account.cross([numbered(i, 60 + i * 7 % 200) for i in range(count)])
    account.check(cards.run("ended"))


def jumbo(cards, one, two, ports):
    """Frames of up to 9,018 bytes cross both ways, byte for byte."""
    cards.run(f"forward {one} {two} --mtu 9000")
    account = Account(ports)
    sizes = [60, 1514, 1515, 1518, 1519, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 9014, 9018]
    sent = [numbered(length, length) for length in sizes + list(range(1500, 9018, 113))]
    account.cross(sent)
    account.cross(sent, back=True)
    account.check(cards.run("ended"))


def interrupts(cards, one, two, ports):
    """Frames wake the forwarder up, by interrupts of its cards; without frames it sleeps."""
    cards.run(f"forward {one} {two} --interrupts on")
    account = Account(ports)
    before = counted(cards, one, 0)
    for i in range(20):
        account.cross([numbered(i, 60)])
        account.cross([numbered(i, 60)], back=True)
    if (came := counted(cards, one, 0) - before) < 5:
        raise VMError(f"{one}: only {came} interrupts for 20 frames")
    # Once is enough: who is running is charged for the time that the host takes the processor away.
    looks = (int(cards.run("before=$(ticks); sleep 3; echo $(($(ticks) - before))")[-1]) for _ in range(3))
    if not any(used <= 15 for used in looks):
        raise VMError("an idle forwarder used more than 15 hundredths of a second in 3 s, three times")
    before = counted(cards, one, 1)
    pull(cards, ports[0], one)
    if (came := counted(cards, one, 1) - before) < 2:
        raise VMError(f"{one}: {came} interrupts for a link that went and came")
    account.cross([numbered(99, 60)])
    account.check(cards.run("ended"))


def pull(cards, port, card):
    """The forwarder says that the cable is pulled, and that it is plugged in again."""
    for up, word in ((False, "down"), (True, "up")):
        cards.guest.set_link(port, up)
        cards.run(f"wait_until 60 grep -q '{card}: link {word}' /err || fail 'no link {word}'")


def links(cards, one, two, ports):
    """A forwarder that polls sees the link go and come, and frames pass again."""
    cards.run(f"forward {one} {two} --interrupts off")
    account = Account(ports)
    pull(cards, ports[0], one)
    account.cross([numbered(1, 60)])
    account.cross([numbered(2, 60)], back=True)
    account.check(cards.run("ended"))


def counted(cards, card, vector):
    """How often a vector of a card behind VFIO has come."""
    lines = cards.run(f"grep -F 'vfio-msix[{vector}]({card})' /proc/interrupts")
    # "25:  20  IR-PCI-MSI ...": a guest has one processor.
    return int([line for line in lines if re.match(r"\s*\d+:\s", line)][-1].split()[1])


def received(cards, model, sent, options):
    """What a card receives of some frames: [(queue, hash, number)]."""
    card, port = cards.addresses(model)[0], cards.ports[model][0]
    cards.run(f"check receive {card} {options}")
    for frame in sent:
        port.send(frame)
    port.send(frames.ethernet(frames.BROADCAST, THEIRS[0], LAST, b""))
    line = [line for line in cards.run("checked") if line.startswith("FRAMES")][-1]
    return [tuple(map(int, word.split(":"))) for word in line.split()[1:]]


def spreading(cards, model):
    """Each flow is on the queue that its hash asks for, no frame is lost, and both queues have traffic."""
    sent, hashes = [], []
    for flow in range(400):
        addresses = frames.ip("10.0.0.1") + bytes([10, 0, flow // 100, flow % 100])
        tcp = struct.pack("!HHIIBBHHH", 1024 + flow, 80, flow, 0, 0x50, 0x10, 8192, 0, 0)
        packet = bytearray(frames.ipv4(addresses[:4], addresses[4:], 6, tcp))
        # Its number is where the receiver looks for it: version, length and 16 bits more.
        sent.append(frames.ethernet(frames.mac(cards.mac(model, 0)), THEIRS[0], 0x0800, bytes(packet)))
        hashes.append(toeplitz(addresses + tcp[:4]))
    found = received(cards, model, sent, "--queues 2")
    if sorted(hash for _, hash, _ in found) != sorted(hashes):
        missing = len(set(hashes) - {hash for _, hash, _ in found})
        raise VMError(f"{model}: {len(found)} of {len(sent)} frames came, {missing} hashes did not")
    # The table names the queues in turn, by the lower seven bits.
    wrong = [hash for queue, hash, _ in found if queue != (hash & 0x7F) % 2]
    if wrong:
        raise VMError(f"{model}: {len(wrong)} of {len(found)} flows are on the other queue")


KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)


def toeplitz(data):
    """The hash of addresses and ports with the published key."""
    key, result = int.from_bytes(KEY, "big"), 0
    for bit in range(8 * len(data)):
        if data[bit // 8] & 0x80 >> bit % 8:
            result ^= key >> (len(KEY) * 8 - 32 - bit) & 0xFFFFFFFF
    return result


def filters(cards, model):
    """Its own address, another one, broadcast, groups, VLANs and promiscuous mode: what comes, and what not."""
    own, other = frames.mac(cards.mac(model, 0)), frames.mac("52:54:00:00:77:77")
    group, stranger = frames.mac("01:00:5e:00:00:fb"), frames.mac("01:00:5e:01:02:03")
    sent = [numbered(i, 60, to) for i, to in
            enumerate([own, other, frames.BROADCAST, group, stranger])]  # fmt: skip
    for options, wanted in [
        ("", {0, 2}),
        ("--mac 52:54:00:00:77:77", {1, 2}),
        ("--groups 01:00:5e:00:00:fb", {0, 2, 3}),
        ("--promiscuous 1", {0, 1, 2, 3, 4}),
    ]:
        expect(cards, model, sent, options, wanted)
    tagged = [numbered(vlan, 64, own, vlan) for vlan in (1, 2, 32, 4094)]
    expect(cards, model, tagged, "--vlans 2,4094", {2, 4094})


def expect(cards, model, sent, options, wanted):
    found = {number for _, _, number in received(cards, model, sent, options)}
    if found != wanted:
        raise VMError(f"{model} {options}: frames {sorted(found)} came, and not {sorted(wanted)}")


def reopening(cards, model):
    """A card is reset, closed and opened fifty times, and nothing leaks."""
    card = cards.addresses(model)[0]
    cards.run(f"$run nictest reopen {card} --rounds 50 || fail 'reopening {card}'")
    cards.ports[model][0].receive_all(quiet=0.05)


def listing(cards):
    """`ixy list` names each card and the driver that would take it."""
    listed = {card["address"]: card for card in
              (json.loads(line) for line in cards.run("ixy list --json") if line.startswith("{"))}  # fmt: skip
    for model in cards.ports:
        for card in cards.addresses(model):
            if (driver := listed[card].get("driver")) != DRIVERS[model]:
                raise VMError(f"ixy list says that {driver} would take {card}, a {model}")


def show(cards, model):
    """All of it for one model."""
    one, two = cards.addresses(model)
    ports = cards.ports[model]
    timed("lengths", lengths, cards, one, two, ports)
    timed("jumbo", jumbo, cards, one, two, ports)
    if cards.way == "vfio":
        timed("interrupts", interrupts, cards, one, two, ports)
    else:
        timed("links", links, cards, one, two, ports)
    if QUEUES.get(model):
        timed("spreading", spreading, cards, model)
    timed("filters", filters, cards, model)
    timed("reopening", reopening, cards, model)


def timed(name, step, cards, first, *rest):
    """Takes a step, and leaves its time in the scenario's log."""
    start = time.monotonic()
    step(cards, first, *rest)
    print(f"{first} {name}: {time.monotonic() - start:.1f} s", flush=True)


def between(cards, one, other):
    """A forwarder between two families carries frames of every length both ways, and counts them."""
    ports = [cards.ports[model][0] for model in (one, other)]
    lengths(cards, cards.addresses(one)[0], cards.addresses(other)[0], ports)


def everything(env, models, way):
    cards = Cards(env, models, way)
    listing(cards)
    for model in models:
        show(cards, model)
    cards.finish()


@needs("qemu-new", "ixy_static", timeout=1800)
def scenario_nics_vfio(env):
    """As user 1000 behind the virtual IOMMU, e1000e, igb and vmxnet3 carry every frame; fifty times opened."""
    everything(env, ["e1000e", "igb", "vmxnet3"], "vfio")


@needs("qemu-new", "ixy_static", timeout=1800)
def scenario_nics_sysfs(env):
    """As root with physical addresses, e1000e, igb and vmxnet3 carry every frame; fifty times opened."""
    everything(env, ["e1000e", "igb", "vmxnet3"], "sysfs")


@needs("qemu-new", "ixy_static", timeout=1800)
def scenario_nics_of_two_families(env):
    """Forwarders between e1000e and virtio, and igb and vmxnet3, carry frames of every length both ways."""
    cards = Cards(env, ["e1000e", "virtio-net-pci", "igb", "vmxnet3"], "vfio", count=1)
    listing(cards)
    timed("e1000e and virtio", between, cards, "e1000e", "virtio-net-pci")
    timed("igb and vmxnet3", between, cards, "igb", "vmxnet3")
    cards.finish()
