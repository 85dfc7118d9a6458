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
  as_user ixy fwd $one $two "$@" >/out 2>/err &
  wait_until 30 grep -q rx /out || fail "the forwarder does not run: $(cat /out /err)"
  forwarder=$(pidof ixy)
}
# ticks: the processor time that the forwarder has used, in hundredths of a second.
ticks() { set -- $(sed 's/.*) //' /proc/$forwarder/stat); echo $(($12 + $13)); }
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


def boot(env, test, *, iommu=True, **options):
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
        devices=[vfio_user_device(path, addr=str(5 + i)) for i, path in enumerate(paths)],
        **options,
    )  # fmt: skip
    return guest, ports


def cross(sender, receiver, count, per_second=1000):
    """Sends numbered frames of all sizes; throws unless they come out in order, byte for byte."""
    sent = []
    for number in range(count):
        data = number.to_bytes(4, "big") + bytes((number + i) & 0xFF for i in range(number * 7 % 1400))
        sent.append(frames.udp(MACS[1], MACS[0], IPS[0], IPS[1], data))
    sender.send_all(sent, per_second)
    for number, wanted in enumerate(sent):
        found = receiver.receive(10)
        if found != wanted:
            what = "nothing" if found is None else f"{len(found)} other bytes"
            raise VMError(f"frame {number} of {count} came out as {what}")


@needs("qemu-new", "ixy_static", timeout=300)
def scenario_vfio_forwards(env):
    """As user 1000, through the virtual IOMMU, frames cross two cards both ways, byte for byte, and it sleeps."""
    guest, (one, two) = boot(
        env,
        """
        bind_both
        forward --interrupts auto
        echo READY
        read word
        before=$(ticks); sleep 5; after=$(ticks)
        echo "IDLE $((after - before))"
        read word
        kill -TERM $forwarder
        wait_until 10 test ! -e /proc/$forwarder || fail "it does not end"
        cat /out /err
        for card in $one $two; do
          ixy bind --restore $card
          [ "$(pci_driver $card)" != vfio-pci ] || fail "$card is not restored"
        done
        """,
        huge_pages=64,
    )
    guest.wait_for("READY", timeout=90)
    count = env.count(300, 3000)
    cross(one, two, count)
    cross(two, one, count)
    guest.type("idle")
    ticks = int(guest.wait_for("IDLE", timeout=60).split()[1])
    # 2 % of a core for 5 s.
    if ticks > 10:
        raise VMError(f"an idle forwarder used {ticks / 5} % of a core")
    time.sleep(1)
    cross(one, two, 1)
    guest.type("done")
    guest.expect_success(timeout=60)


@needs("qemu-new", "ixy_static", timeout=300)
def scenario_vfio_refuses(env):
    """What is missing for VFIO is said, each with the command that mends it; a second process is refused."""
    guest, (one, two) = boot(
        env,
        """
        not_mastering() { ! masters $one && ! masters $two; }
        refused "sudo modprobe vfio-pci; sudo ixy bind" ixy fwd $one $two --duration 1s
        bind_both
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
        # Killed hard, its mappings and the cards go with it; the next one starts.
        kill -9 $forwarder
        wait_until 10 test ! -e /proc/$forwarder || fail "it does not die"
        wait_until 10 not_mastering || fail "a card still masters the bus"
        forward
        echo READY
        read word
        kill -TERM $forwarder
        wait
        """,
        huge_pages=64,
    )
    guest.wait_for("READY", timeout=150)
    cross(one, two, 20)
    guest.type("done")
    guest.expect_success(timeout=60)


@needs("qemu-new", "ixy_static", timeout=300)
def scenario_guardian(env):
    """Without an IOMMU, a forwarder that is killed hard leaves no card that masters the bus."""
    guest, (one, two) = boot(
        env,
        """
        not_mastering() { ! masters $one && ! masters $two; }
        as_root() { ixy fwd $one $two "$@" >/out 2>/err & }
        as_root
        wait_until 30 grep -q rx /out || fail "the forwarder does not run: $(cat /out /err)"
        masters $one && masters $two || fail "the cards do not master the bus"
        echo READY
        read word
        forwarder=$(ps | grep "[i]xy fwd" | awk '{print $1}' | head -1)
        kill -9 $forwarder
        wait_until 10 not_mastering || fail "a card still masters the bus"
        as_root
        wait_until 30 grep -q rx /out || fail "the next one does not run: $(cat /out /err)"
        # The other way round: where the guardians die first, the cards go on. So it was they who stopped them.
        for process in $(ps | grep "[i]xy fwd" | awk '{print $1}' | sort -rn); do kill -9 $process; done
        sleep 2
        masters $one && masters $two || fail "something else stops the cards: this test shows nothing"
        """,
        iommu=False,
        huge_pages=64,
    )
    guest.wait_for("READY", timeout=90)
    cross(one, two, 20)
    guest.type("done")
    guest.expect_success(timeout=90)
