"""Our ixgbe driver reaches our emulated 82599 through VFIO and a virtual IOMMU, as an ordinary user."""

import time

import frames
from vm import VMError, needs, vfio_user_device

MACS = [frames.mac("02:00:00:00:00:01"), frames.mac("02:00:00:00:00:02")]
IPS = [frames.ip("10.0.0.1"), frames.ip("10.0.0.2")]

# Binds both cards, as root, and has a forwarder between them, as user 1000.
SETUP = """
load vfio_iommu_type1 vfio-pci
one=0000:00:05.0
two=0000:00:06.0
bind_both() {
  for card in $one $two; do
    ixy bind --user 1000 $card || fail "ixy bind $card"
    [ "$(pci_driver $card)" = vfio-pci ] || fail "$card has driver '$(pci_driver $card)'"
  done
  chmod 666 /dev/vfio/vfio
}
# forward OPTION...: starts the forwarder, and waits until it runs.
forward() {
  # What another run has left there would pass for this one's.
  rm -f /out /err
  as_user ixy fwd $one $two "$@" >/out 2>/err &
  job=$!
  wait_until 60 grep -q rx /out || fail "the forwarder does not run: $(cat /out /err)"
  forwarder=$(pidof ixy)
}
# ended: ends what runs, by its job.
ended() {
  kill -TERM $(pidof ixy)
  wait $job || fail "it ended with $?: $(cat /out /err)"
}
# ticks: the processor time that the forwarder has used, in hundredths of a second.
ticks() { set -- $(sed 's/.*) //' /proc/$forwarder/stat); echo $(($12 + $13)); }
# idle: the processor time that the forwarder uses in 5 s without a frame. Where that is much, the least of three: who
# is running is charged for the time that the host takes the processor away.
idle() {
  _least=500
  for _try in 1 2 3; do
    _before=$(ticks); sleep 5; _used=$(($(ticks) - _before))
    [ $_used -ge $_least ] || _least=$_used
    [ $_least -gt 10 ] || break
  done
  echo "IDLE $_least"
}
# refused TEXT COMMAND...: the command fails, and its message has TEXT.
refused() {
  _text=$1; shift
  _said=$("$@" 2>&1) && fail "$*: it was not refused"
  echo "$_said" | grep -q -e "$_text" || fail "$*: no '$_text' in: $_said"
  echo "REFUSED $_said"
}
# masters CARD: whether bus mastering is on.
masters() {
  _command=$(dd if=/sys/bus/pci/devices/$1/config bs=1 skip=4 count=1 2>/dev/null | hexdump -e '1/1 "%x"')
  [ $((0x$_command & 4)) != 0 ]
}
"""


def boot(env, test, *, iommu=True, bridge=(), places=({"addr": "5"}, {"addr": "6"}), **options):
    """A guest with two of our cards. Returns it, and the hosts' ends of their cables."""
    ports = [env.port("one"), env.port("two")]
    words, paths = [], []
    for port in ports:
        paths.append(env.path(f"card-{port.name}"))
        wire = f"dgram,local={port._guest},remote={port._host}"
        words += ["--socket", paths[-1], "--wire", wire]
    env.server([env.ixy_static, "emulate", "82599", *words], paths)
    guest = env.guest(
        SETUP + test,
        qemu="new", shared_memory=True, viommu=iommu, files={"/bin/ixy": env.ixy_static},
        devices=[bridge, *(vfio_user_device(path, **place) for path, place in zip(paths, places))],
        **options,
    )  # fmt: skip
    return guest, ports


def cross(sender, receiver, count, per_second=1000):
    """Sends numbered frames of all sizes; throws unless they come out in order, byte for byte."""
    sent = []
    for number in range(count):
        data = number.to_bytes(4, "big") + bytes((number + i) & 0xFF for i in range(number * 7 % 1400))
        sent.append(frames.udp(MACS[1], MACS[0], IPS[0], IPS[1], data))
    # As many at a time as the rings and sockets on the way hold.
    for start in range(0, count, 200):
        sender.send_all(sent[start : start + 200], per_second)
        for number, wanted in enumerate(sent[start : start + 200], start):
            found = receiver.receive()
            if found != wanted:
                what = "nothing" if found is None else f"{len(found)} other bytes"
                raise VMError(f"frame {number} of {count} came out as {what}")


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_vfio_forwards(env):
    """As user 1000, through the virtual IOMMU, frames cross two cards both ways, byte for byte, and it sleeps."""
    guest, (one, two) = boot(
        env,
        """
        bind_both
        forward --interrupts auto
        [ $(ls -l /proc/$forwarder/fd | grep -c " /dev/vfio/vfio$") = 1 ] || fail "it has not one container"
        [ $(ls -l /proc/$forwarder/fd | grep -c " /dev/vfio/[0-9]*$") = 2 ] || fail "it has not two groups"
        echo READY
        read word
        idle
        read word
        ended
        cat /out /err
        for card in $one $two; do
          ixy bind --restore $card
          [ "$(pci_driver $card)" != vfio-pci ] || fail "$card is not restored"
        done
        """,
        huge_pages=64,
    )
    guest.wait_for("READY")
    count = env.count(300, 3000)
    cross(one, two, count)
    cross(two, one, count)
    guest.type("idle")
    ticks = int(guest.wait_for("IDLE").split()[1])
    # 2 % of a core for 5 s.
    if ticks > 10:
        raise VMError(f"an idle forwarder used {ticks / 5} % of a core")
    time.sleep(1)
    cross(one, two, 1)
    guest.type("done")
    guest.expect_success()


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_vfio_refuses(env):
    """What is missing for VFIO is said, each with the command that mends it; a second process is refused."""
    guest, (one, two) = boot(
        env,
        """
        not_mastering() { ! masters $one && ! masters $two; }
        refused "sudo modprobe vfio-pci; sudo ixy bind" ixy fwd $one $two --duration 1s
        # A kernel driver has it, for somebody whose interfaces we do not see.
        load ixgbe
        name=$(interface $one) || exit 1
        ip netns add elsewhere && ip link set $name netns elsewhere || fail "$name cannot move"
        refused "another network namespace may use it" ixy bind $one
        [ "$(pci_driver $one)" = ixgbe ] || fail "ixgbe has lost its card"
        rmmod ixgbe
        bind_both
        pause() { echo "PAUSE $1."; read word; }
        pause bound
        chown root /dev/vfio/$(iommu_group $one)
        refused 'sudo ixy bind --user $USER 0000:00:05.0' as_user ixy fwd $one $two --duration 1s
        chmod 600 /dev/vfio/vfio
        refused "sudo chmod 666 /dev/vfio/vfio" as_user ixy fwd $one $two --duration 1s
        chmod 666 /dev/vfio/vfio
        ixy bind --user 1000 $one || fail "bind again"
        LOCKED_KIB=1024
        refused "ulimit -l" as_user ixy fwd $one $two --duration 1s
        LOCKED_KIB=131072
        forward
        refused "process $forwarder drives it" as_user ixy fwd $one $two --duration 1s
        refused "process $forwarder drives it" ixy bind --restore $one
        pause forwarding
        # Killed hard, its mappings and the cards go with it; the next one starts.
        kill -9 $forwarder
        wait_until 60 test ! -e /proc/$forwarder || fail "it does not die"
        wait_until 60 not_mastering || fail "a card still masters the bus"
        pause killed
        forward
        echo READY
        read word
        ended
        """,
        huge_pages=64,
    )
    server = env.servers[0]
    mapped = {}
    for moment in ("bound", "forwarding", "killed"):
        guest.wait_for(f"PAUSE {moment}.")
        mapped[moment] = server.held()[1]
        guest.type()
    print(f"the cards have mapped {mapped} KiB")
    if mapped["forwarding"] <= mapped["bound"]:
        raise VMError("the forwarder's mappings do not show: nothing would be noticed")
    if mapped["killed"] != mapped["bound"]:
        raise VMError(f"after kill -9 the cards still reach memory: {mapped} KiB")
    guest.wait_for("READY")
    cross(one, two, 20)
    guest.type("done")
    guest.expect_success()


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_vfio_stops_bad_dma(env):
    """A descriptor that points outside the mapped memory is stopped by the virtual IOMMU, and our process says so."""
    guest, (one, two) = boot(
        env,
        """
        bind_both
        forward --interrupts auto
        echo READY
        read word
        # Behind the driver's back: its next transmit descriptor on the second card, and that one's tail.
        # All memory of the domain lies at one constant + IOVA, from IOVA 0x200000 on.
        bar=$(head -1 /sys/bus/pci/devices/$two/resource | cut -d' ' -f1)
        register() { devmem $(printf '0x%x' $((bar + $1))) 32 $2; }
        [ "$(register 0x6004)" = 0x00000000 ] || fail "the ring is not where this test looks: $(register 0x6004)"
        tail=$(register 0x6018)
        memory=$(grep -m1 memfd:ixy /proc/$forwarder/maps | cut -d- -f1)
        place=$((0x$memory - 0x200000 + $(register 0x6000) + 16 * tail))
        # Address 0x7F12340000; 60 bytes, of one descriptor: PAYLEN, DEXT, RS, IFCS, EOP, data.
        printf '\\000\\000\\064\\022\\177\\000\\000\\000\\074\\000\\060\\053\\000\\000\\017\\000' |
          dd of=/proc/$forwarder/mem bs=16 seek=$((place / 16)) conv=notrunc 2>/dev/null || fail "its memory cannot be written"
        register 0x6018 $((tail + 1))
        wait_until 60 grep -q "0000:00:06.0: a read of memory was refused" /err || fail "it does not say so: $(cat /err)"
        grep -q "0000:00:05.0: a read" /err && fail "it blames the other card"
        cat /err
        echo STOPPED
        read word
        ended
        """,
        huge_pages=64,
        append="iomem=relaxed",
    )
    server = env.servers[0]
    guest.wait_for("READY")
    cross(one, two, 20)
    if "refused to" in server.stderr:
        raise VMError(f"an access was refused before the bad one: {server.stderr}")
    guest.type("poke")
    guest.wait_for("STOPPED")
    # The read itself was refused: the address has no mapping.
    if "refused to read 60 bytes at IOVA 0x7f12340000" not in server.stderr:
        raise VMError(f"the card does not say what it was refused: {server.stderr}")
    if (frame := two.receive(1)) is not None:
        raise VMError(f"{len(frame)} bytes came out all the same")
    # The other direction goes on.
    cross(two, one, 20)
    guest.type("done")
    guest.expect_success()


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_vfio_one_group(env):
    """Two cards that the IOMMU cannot tell apart: refused while the kernel has one, then both in one process."""
    guest, (one, two) = boot(
        env,
        """
        one=0000:01:01.0
        two=0000:01:02.0
        group=$(iommu_group $one)
        [ $group = "$(iommu_group $two)" ] || fail "they are in two groups"
        load ixgbe
        interface $two >/dev/null
        ixy bind --user 1000 $one >/out 2>&1 || fail "ixy bind: $(cat /out)"
        grep -q "group $group also holds $two (driver ixgbe)" /out || fail "ixy bind does not tell: $(cat /out)"
        chmod 666 /dev/vfio/vfio
        refused "sudo ixy bind $two" as_user ixy dump $one -w /tmp/one --duration 1s
        bind_both
        rm -f /out /err
        as_user ixy dump $one -w /tmp/one >/out 2>/err &
        job=$!
        wait_until 60 grep -q rx /out || fail "it does not run: $(cat /out /err)"
        refused "Another process has a card of this group" as_user ixy dump $two -w /tmp/two --duration 1s
        ended
        forward
        echo READY
        read word
        ended
        """,
        # Behind a bridge to conventional PCI nobody can tell whose request it is.
        bridge=("-device", "pcie-pci-bridge,id=old,addr=5"),
        places=({"bus": "old", "addr": "1"}, {"bus": "old", "addr": "2"}),
        huge_pages=64,
    )
    guest.wait_for("READY")
    cross(one, two, 20)
    cross(two, one, 20)
    guest.type("done")
    guest.expect_success()


@needs("ixy_static", timeout=600)
def scenario_vfio_intx(env):
    """Cards that have nothing but an interrupt line wake a forwarder through VFIO, as often as frames come."""
    one, two = ports = [env.port("one"), env.port("two")]
    guest = env.guest(
        SETUP
        + """
        bind_both
        forward --interrupts on
        for card in $one $two; do
          # The kernel has the line connected: one interrupt of a card on VFIO.
          grep -q "vfio-intx($card)" /proc/interrupts || fail "no line: $(cat /proc/interrupts)"
        done
        echo READY
        read word
        idle
        read word
        grep vfio-intx /proc/interrupts
        ended
        """,
        viommu=True,
        huge_pages=64,
        files={"/bin/ixy": env.ixy_static},
        # Without vectors there is no MSI-X.
        devices=[
            port.nic("virtio-net-pci", vectors=0, iommu_platform="on", disable_legacy="on", addr=addr)
            for port, addr in zip(ports, "56")
        ],
    )
    guest.wait_for("READY")
    for _ in range(env.count(5, 20)):
        # Each of the two finds it asleep.
        cross(one, two, 5)
        time.sleep(0.2)
        cross(two, one, 5)
        time.sleep(0.2)
    guest.type("idle")
    ticks = int(guest.wait_for("IDLE").split()[1])
    if ticks > 10:
        raise VMError(f"an idle forwarder used {ticks / 5} % of a core")
    cross(one, two, 1)
    guest.type("done")
    guest.expect_success()
    lines = [line for line in guest.lines if "vfio-intx" in line]
    print("\n".join(lines))
    if len(lines) != 2 or any(int(line.split()[1]) < env.count(5, 20) for line in lines):
        raise VMError(f"the lines have not woken it: {lines}")


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_guardian(env):
    """Through sysfs, on huge pages, frames cross both ways; a forwarder that is killed hard leaves no card that masters the bus."""
    guest, (one, two) = boot(
        env,
        """
        not_mastering() { ! masters $one && ! masters $two; }
        as_root() { rm -f /out /err; ixy fwd $one $two "$@" >/out 2>/err & }
        as_root
        wait_until 60 grep -q rx /out || fail "the forwarder does not run: $(cat /out /err)"
        masters $one && masters $two || fail "the cards do not master the bus"
        echo READY
        read word
        forwarder=$(ps | grep "[i]xy fwd" | awk '{print $1}' | head -1)
        kill -9 $forwarder
        wait_until 60 not_mastering || fail "a card still masters the bus"
        as_root
        wait_until 60 grep -q rx /out || fail "the next one does not run: $(cat /out /err)"
        # The other way round: where the guardians die first, the cards go on. So it was they who stopped them.
        for process in $(ps | grep "[i]xy fwd" | awk '{print $1}' | sort -rn); do kill -9 $process; done
        sleep 2
        masters $one && masters $two || fail "something else stops the cards: this test shows nothing"
        """,
        iommu=False,
        huge_pages=64,
    )
    guest.wait_for("READY")
    count = env.count(100, 1000)
    cross(one, two, count)
    cross(two, one, count)
    guest.type("done")
    guest.expect_success()
