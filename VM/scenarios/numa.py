"""Memory and threads of a forwarder are on the NUMA node that its cards are attached to."""

import frames
from vm import VMError, needs, numa_bus, vfio_user_device

MACS = [frames.mac("02:00:00:00:00:01"), frames.mac("02:00:00:00:00:02")]
IPS = [frames.ip("10.0.0.1"), frames.ip("10.0.0.2")]

# Processors 0 and 1 are on node 0, 2 and 3 on node 1. Cards $one and $two are on node 1, $three on node 0.
TEST = """
one=$(pci_address 8086:10fb 1) && two=$(pci_address 8086:10fb 2) && three=$(pci_address 8086:10fb 3) ||
  fail "there are no three cards: $(ls /sys/bus/pci/devices)"
node() { cat /sys/bus/pci/devices/$1/numa_node; }
[ "$(node $one) $(node $two) $(node $three)" = "1 1 0" ] ||
  fail "the cards are on nodes $(node $one) $(node $two) $(node $three)"
for node in 0 1; do
  [ "$(cat /sys/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages)" -ge 30 ] ||
    fail "node $node has few huge pages"
done
# forward OPTION...: starts a forwarder, and waits until it runs.
forward() {
  # What another run has left there would pass for this one's.
  rm -f /out /err
  ixy fwd "$@" >/out 2>/err &
  forwarder=$!
  wait_until 60 grep -q rx /out || fail "the forwarder does not run: $(cat /out /err)"
}
# ended: ends it.
ended() {
  kill -TERM $forwarder
  wait $forwarder || fail "it ended with $?: $(cat /out /err)"
}
# memory_on NODE: all DMA memory is on this node, and there is some.
memory_on() {
  grep memfd:ixy /proc/$forwarder/numa_maps >/maps
  grep -q " N$1=" /maps && ! grep -q " N$((1 - $1))=" /maps || fail "memory is not on node $1: $(cat /maps)"
  echo "MEMORY-ON-NODE $1: $(wc -l </maps) mappings, $(grep -c huge /maps) of huge pages"
}
# thread_on NAME CORES: the thread may run on these processors.
thread_on() {
  for _task in /proc/$forwarder/task/*; do
    [ "$(cat $_task/comm)" = $1 ] || continue
    _cores=$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' $_task/status)
    [ "$_cores" = $2 ] || fail "$1 may run on $_cores, not on $2"
    echo "THREAD $1 ON $_cores"
    return 0
  done
  fail "there is no thread $1: $(cat /proc/$forwarder/task/*/comm)"
}

forward $one $two --queues 2
memory_on 1
thread_on ixy-0 2
thread_on ixy-1 3
echo READY-QUEUES
read word
ended
! grep -q NUMA /err || fail "a warning without a reason: $(cat /err)"

forward $one $two --pipeline
memory_on 1
for name in ixy-receive ixy-work ixy-send; do thread_on $name 2-3; done
echo READY-PIPELINE
read word
ended

forward $one $two
memory_on 1
thread_on ixy 2-3
ended

forward $one $two --queues 2 --numa 0
memory_on 0
thread_on ixy-0 0
thread_on ixy-1 1
ended

forward $one $two --numa off
thread_on ixy 0-3
ended

forward $three $two
memory_on 0
grep -q "$three is on NUMA node 0, $two on node 1" /err || fail "no warning: $(cat /err)"
ended
"""


def cross(sender, receiver, count):
    """Sends numbered frames; throws unless they come out in order, byte for byte."""
    sent = [
        frames.udp(MACS[1], MACS[0], IPS[0], IPS[1], number.to_bytes(4, "big") * 50)
        for number in range(count)
    ]
    # As many at a time as the rings and sockets on the way hold.
    for start in range(0, count, 100):
        sender.send_all(sent[start : start + 100], 1000)
        for number, wanted in enumerate(sent[start : start + 100], start):
            if receiver.receive() != wanted:
                raise VMError(f"frame {number} of {count} did not come out as it went in")


@needs("qemu-new", "ixy_static", timeout=400)
def scenario_numa_node_of_the_card(env):
    """With the cards on node 1 of two, rings, pools and threads of a forwarder are there; --numa says otherwise."""
    ports, words, paths, devices = [], [], [], []
    for number, (name, node) in enumerate([("one", 1), ("two", 1), ("three", 0)]):
        port = env.port(name)
        ports.append(port)
        paths.append(env.path(f"card-{name}"))
        words += ["--socket", paths[-1], "--wire", port.wire()]
        devices.append(numa_bus(node, f"bus-{name}", 64 + 16 * number))
        devices.append(vfio_user_device(paths[-1], bus=f"bus-{name}"))
    env.server([env.ixy_static, "emulate", "82599", *words], paths)
    guest = env.guest(
        TEST, qemu="new", shared_memory=True, files={"/bin/ixy": env.ixy_static}, devices=devices,
        smp=4, numa=2, memory=1024, huge_pages=96, timeout=380,
    )  # fmt: skip
    for stage in ["QUEUES", "PIPELINE"]:
        guest.wait_for(f"READY-{stage}")
        cross(ports[0], ports[1], env.count(100, 1000))
        cross(ports[1], ports[0], env.count(100, 1000))
        guest.type("on")
    guest.expect_success()
