"""The harness itself: QEMU's NICs with Linux's own drivers answer frames of ours."""

import frames
from vm import VMError, needs

HOST_MAC = frames.mac("02:00:00:00:00:01")

# The addresses in the guest follow the order of the NICs: slot 4 is 10.0.4.2, and so on.
GUEST_TEST = """
load {modules}
for slot in {slots}; do
  name=$(interface 0000:00:0$slot.0) || exit 1
  up $name 10.0.$slot.2/24
  echo "READY $slot $(ethtool -i $name | sed -n 's/^driver: //p')"
done
echo READY-ALL
read word
[ "$word" = done ] || fail "the host typed '$word'"
"""


def exchange(env, models, modules, qemu):
    """Boots a guest with one NIC of each model and makes each answer ARP and pings."""
    slots = range(4, 4 + len(models))
    ports = [env.port(f"port{slot}") for slot in slots]
    guest = env.guest(
        GUEST_TEST.format(modules=modules, slots=" ".join(map(str, slots))),
        qemu=qemu,
        devices=[
            port.nic(model, mac=f"52:54:00:00:00:0{slot}", addr=slot)
            for port, model, slot in zip(ports, models, slots)
        ],
    )
    guest.wait_for("READY-ALL")
    for slot, port, model in zip(slots, ports, models):
        driver = guest.wait_for(f"READY {slot} ").split()[2]
        expected = "virtio_net" if model.startswith("virtio") else model
        if driver != expected:
            raise VMError(f"{model} is driven by {driver}")
        answer_arp(port, slot)
        answer_pings(port, slot, env.count(20, 500))
    guest.type("done")
    guest.expect_success()


def answer_arp(port, slot):
    guest_mac = frames.mac(f"52:54:00:00:00:0{slot}")
    guest_ip = frames.ip(f"10.0.{slot}.2")
    port.send(frames.arp_request(HOST_MAC, frames.ip(f"10.0.{slot}.1"), guest_ip))
    told = frames.arp_reply_of(port.expect(frames.arp_reply_of, what="ARP reply"))
    if told != (guest_mac, guest_ip):
        raise VMError(f"port {port.name}: the ARP reply tells {told}")


def answer_pings(port, slot, count):
    guest_mac = frames.mac(f"52:54:00:00:00:0{slot}")
    host_ip, guest_ip = frames.ip(f"10.0.{slot}.1"), frames.ip(f"10.0.{slot}.2")
    for sequence in range(count):
        # From the smallest frame to the largest.
        data = bytes((sequence + i) & 0xFF for i in range(sequence * 1472 // (count - 1)))
        port.send(frames.echo_request(guest_mac, HOST_MAC, host_ip, guest_ip, sequence, data))
        told = frames.echo_reply_of(port.expect(frames.echo_reply_of, what="answer to a ping"))
        if told != (sequence, data):
            raise VMError(f"port {port.name}: ping {sequence} with {len(data)} bytes came back changed")


def scenario_linux_drivers_answer(env):
    """Linux's virtio-net, e1000e and vmxnet3 drivers in a guest answer ARP and pings of all sizes."""
    models = ["virtio-net-pci", "e1000e", "vmxnet3"]
    exchange(env, models, "virtio_pci virtio_net e1000e vmxnet3", "system")


@needs("qemu-new")
def scenario_linux_igb_answers(env):
    """Linux's igb driver in a guest of the newer QEMU answers ARP and pings of all sizes."""
    exchange(env, ["igb"], "igb", "new")
