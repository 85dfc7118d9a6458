"""Linux's own ixgbe driver, and DPDK's, drive our emulated 82599 in a guest, over vfio-user."""

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys

from vm import VMError, needs, vfio_user_device

MAC = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]
LINKS = [f"link,peer=x,mac={mac}" for mac in MAC]

# Functions for the guest's tests, and the driver's first minute: cards $a and $b at slots 5 and 6.
DRIVER = """
# kernel_is_quiet: fails if the kernel has warned of anything since the driver came.
# What a slow host makes it say of clocks is not ours, nor what `source_port` does.
kernel_is_quiet() {
  _said=$(dmesg -r | grep '^<[0-4]>' | grep -v -e clocksource -e hrtimer -e ip_local_port_range)
  [ -z "$_said" ] || fail "the kernel says: $_said"
}

# says TEXT COMMAND...: the output of COMMAND has TEXT.
says() {
  _text=$1; shift
  _said=$("$@" 2>&1)
  echo "$_said" | grep -q -e "$_text" || fail "$*: no '$_text' in: $_said"
}

# counter NAMESPACE INTERFACE NAME: one of the driver's statistics.
counter() { ip netns exec $1 ethtool -S $2 | sed -n "s/^ *$3: //p" | grep .; }

# agree NAMESPACE INTERFACE NAME NAMESPACE INTERFACE NAME: true if two counters are the same.
agree() { [ "$(counter $1 $2 $3)" = "$(counter $4 $5 $6)" ]; }

# is WHAT FOUND WANTED
is() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; }

# ping_from NAMESPACE COUNT ADDRESS [OPTION...]: every echo comes back.
ping_from() {
  _from=$1; _count=$2; _to=$3; shift 3
  says "$_count packets received" ip netns exec $_from ping -q -c $_count -i 0.05 -W 5 "$@" $_to
}

# source_port NAMESPACE PORT: the next connection's own port; busybox's nc cannot choose.
source_port() { ip netns exec $1 sysctl -q -w net.ipv4.ip_local_port_range="$2 $2"; }

# transfer FROM TO ADDRESS [PORT]: the file /data by TCP from namespace to namespace, unchanged.
transfer() {
  ip netns exec $2 sh -c "nc -l -p 5000 <>/hold | md5sum >/received" &
  wait_until 10 listens $2 || fail "nobody listens in $2"
  [ -z "$4" ] || source_port $1 $4
  ip netns exec $1 nc $3 5000 </data || fail "cannot connect from $1 to $3"
  wait
  is "what came from $1 to $2" "$(cat /received)" "$(md5sum </data)"
}
# transfer_to NAMESPACE ADDRESS: the same from the guest's own network.
transfer_to() {
  ip netns exec $1 sh -c "nc -l -p 5000 <>/hold | md5sum >/received" &
  wait_until 10 listens $1 || fail "nobody listens in $1"
  nc $2 5000 </data || fail "cannot connect to $1"
  wait
  is "what came to $1" "$(cat /received)" "$(md5sum </data)"
}
listens() { ip netns exec $1 netstat -ltn | grep -q ":5000 "; }
mkfifo /hold

# data MEBIBYTES: makes /data.
data() { dd if=/dev/urandom of=/data bs=1M count=$1 2>/dev/null; }

dmesg -c >/dev/null
"""

TWO_CARDS = DRIVER + """
load ixgbe
a=$(interface 0000:00:05.0) || exit 1
b=$(interface 0000:00:06.0) || exit 1
kernel_is_quiet
# both: a namespace for each card, with addresses of one network, and the link up.
both() {
  namespace one $a 10.0.0.1/24
  namespace two $b 10.0.0.2/24
}
"""


def serve(env, wires, family="82599", options=()):
    """Starts one server with a card for each wire. Returns it, and QEMU's arguments for the cards."""
    paths = [env.path(f"card{number}") for number, _ in enumerate(wires)]
    words = [word for path, wire in zip(paths, wires) for word in ("--socket", path, "--wire", wire)]
    server = env.server([env.ixy_static, "emulate", family, *options, *words], paths)
    return server, [vfio_user_device(path, addr=str(5 + number)) for number, path in enumerate(paths)]


def boot(env, test, devices, **options):
    """A guest with our cards."""
    return env.guest(test, devices=devices, qemu="new", shared_memory=True, **options)


def command(*words):
    """Runs a command on the host; throws where it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise VMError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def expect_server_alive(server):
    if server.process.poll() is not None:
        raise VMError(f"the server ended with {server.process.poll()}: {server.tail()}")


@needs("qemu-new", "ixy_static", timeout=300)
def scenario_linux_ixgbe_link(env):
    """Linux's ixgbe probes two of our cards, and they carry its IPv4, IPv6 and VLAN with all offloads on."""
    server, devices = serve(env, LINKS)
    guest = boot(
        env,
        TWO_CARDS + f"""
        is "the first card's address" $(cat /sys/class/net/$a/address) {MAC[0]}
        is "the second card's address" $(cat /sys/class/net/$b/address) {MAC[1]}
        both
        kernel_is_quiet
        dmesg | grep -c "NIC Link is Up 10 Gbps" | grep -q 2 || fail "no link in the log"
        for card in "one $a" "two $b"; do
          set -- $card; in="ip netns exec $1"
          says "^driver: ixgbe" $in ethtool -i $2
          says "^firmware-version: 0x80000208" $in ethtool -i $2
          says "Speed: 10000Mb/s" $in ethtool $2
          says "Duplex: Full" $in ethtool $2
          says "Link detected: yes" $in ethtool $2
          says "10000baseT/Full" $in ethtool $2
          for feature in rx-checksumming tx-checksumming scatter-gather tcp-segmentation-offload \\
            tx-tcp6-segmentation generic-receive-offload rx-vlan-offload tx-vlan-offload \\
            rx-vlan-filter receive-hashing; do
            says "$feature: on" $in ethtool -k $2
          done
          # Words 0 to 2 and the checksum of the EEPROM, and the module's identifier.
          says "0x0000:.*02 00 00 00 00 0" $in ethtool -e $2 offset 0 length 16
        done
        says "0x0000:.*03" ip netns exec one ethtool -m $a offset 0 length 1 hex off

        # The first packets, counted by the driver and by the card.
        ping_from one {env.count(10, 200)} 10.0.0.2
        ping_from two 5 10.0.0.1 -s 1472
        for name in rx_errors rx_missed_errors rx_crc_errors rx_length_errors rx_no_dma_resources \\
          rx_csum_offload_errors tx_timeout_count rx_long_length_errors rx_short_length_errors; do
          is "$name" $(counter one $a $name) 0
          is "$name" $(counter two $b $name) 0
        done
        # Linux asks again by ARP now and then: between two readings there may be a frame.
        wait_until 10 agree one $a tx_pkts_nic two $b rx_pkts_nic || fail "the second card has not counted all frames"
        wait_until 10 agree two $b tx_pkts_nic one $a rx_pkts_nic || fail "the first card has not counted all frames"
        wait_until 10 agree one $a rx_packets one $a rx_pkts_nic || fail "the driver and the card disagree"
        [ $(counter one $a tx_pkts_nic) -gt 10 ] || fail "the card counts no frames"

        registers=$(ip netns exec one ethtool -d $a)
        register() {{ echo "$registers" | sed -n "s/^0x$1: .* 0x//p"; }}
        is LINKS $(register 042A4) 70000080
        is STATUS $(register 00008) 00080080
        is RDLEN $(register 01008) 00002000
        is TDLEN $(register 06008) 00002000
        is RXDCTL $(register 01028) 42000000
        is MHADD $(register 04268) 05EE0000
        is "TDH, which has caught up with TDT," $(register 06010) $(register 06018)
        is RAL $(register 05400) 00000002
        is RAH $(register 05404) 80000A00

        data 20
        transfer one two 10.0.0.2
        transfer two one 10.0.0.1
        # More frames left the card than Linux made packets: the card has cut them.
        packets=$(ip netns exec one awk '/^Ip: [0-9]/ {{ print $11 }}' /proc/net/snmp)
        [ $(counter one $a tx_pkts_nic) -gt $((packets * 2)) ] || fail "only $packets packets: no segmentation"
        kernel_is_quiet
        echo IPV4-DONE
        data {env.count(4, 20)}

        ip netns exec one sysctl -q -w net.ipv6.conf.$a.disable_ipv6=0
        ip netns exec two sysctl -q -w net.ipv6.conf.$b.disable_ipv6=0
        ip -n one address add fd00::1/64 dev $a nodad
        ip -n two address add fd00::2/64 dev $b nodad
        ping_from one 5 fd00::2
        transfer one two fd00::2
        transfer two one fd00::1
        kernel_is_quiet
        echo IPV6-DONE

        load 8021q
        ip -n one link add link $a name tagged type vlan id 5
        ip -n two link add link $b name tagged type vlan id 5
        ip -n one address add 10.5.0.1/24 dev tagged
        ip -n two address add 10.5.0.2/24 dev tagged
        ip -n one link set tagged up
        ip -n two link set tagged up
        ping_from one 5 10.5.0.2
        transfer one two 10.5.0.2
        # The other way without the receiver's offload: Linux itself looks at every checksum that the card made.
        ip netns exec one ethtool -K $a rx off
        transfer two one 10.5.0.1
        # The card filters: a VLAN that nobody has asked for does not come through.
        ip -n one link add link $a name other type vlan id 6
        ip -n one address add 10.6.0.1/24 dev other
        ip -n one link set other up
        before=$(counter two $b rx_packets)
        ip netns exec one ping -q -c 3 -i 0.05 -W 1 10.6.0.2 >/dev/null && fail "an answer without a VLAN"
        is "frames of a VLAN that is not there" $(counter two $b rx_packets) $before
        kernel_is_quiet

        for name in one two; do
          # InErrs and InCsumErrors of TCP, InCsumErrors of UDP.
          is "TCP's errors in $name" "$(ip netns exec $name awk '/^Tcp: [0-9]/ {{ print $14, $16 }}' /proc/net/snmp)" "0 0"
          echo "RETRANSMITTED $name $(ip netns exec $name awk '/^Tcp: [0-9]/ {{ print $13 }}' /proc/net/snmp)"
        done
        """,
        devices,
        timeout=280,
    )
    guest.expect_success()
    expect_server_alive(server)


# The host's side of a tap, in a network namespace. It prints what it got.
HOST_PROGRAM = """
import hashlib, os, socket, struct, sys, threading

def answer_names(server):
    # A name server that knows one address: 10.9.8.7.
    while True:
        question, sender = server.recvfrom(1500)
        end = question.index(0, 12) + 5
        is_a = question[end - 4 : end - 2] == bytes((0, 1))
        head = question[:2] + struct.pack("!HHHHH", 0x8580, 1, is_a, 0, 0)
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes((10, 9, 8, 7))
        server.sendto(head + question[12:end] + (answer if is_a else b""), sender)

names = socket.socket(type=socket.SOCK_DGRAM)
names.bind(("10.0.0.1", 53))
threading.Thread(target=answer_names, args=[names], daemon=True).start()
listener = socket.create_server(("10.0.0.1", 5000))
print("LISTENS", flush=True)
connection = listener.accept()[0]
digest = hashlib.md5()
while data := connection.recv(1 << 16):
    digest.update(data)
connection.close()
print("RECEIVED", digest.hexdigest(), flush=True)
sys.stdin.readline()
data = os.urandom(20 << 20)
print("SENDS", hashlib.md5(data).hexdigest(), flush=True)
with socket.create_connection(("10.0.0.2", 5000)) as connection:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
"""


@contextlib.contextmanager
def host_namespace():
    """A network namespace of the host, gone afterwards."""
    name = f"ixy-vm-{os.getpid()}"
    command("ip", "netns", "add", name)
    try:
        yield name
    finally:
        command("ip", "netns", "delete", name)


@needs("qemu-new", "ixy_static", timeout=240)
def scenario_linux_ixgbe_host(env):
    """Linux's ixgbe reaches the host's own TCP/IP stack through our card and a tap interface."""
    with host_namespace() as name:
        inside = ["ip", "netns", "exec", name]
        path = env.path("card")
        server = env.server(
            [*inside, env.ixy_static, "emulate", "82599", "--socket", path, "--wire", "tap,name=ixy0"], [path]
        )
        command("ip", "-n", name, "address", "add", "10.0.0.1/24", "dev", "ixy0")
        host = subprocess.Popen([*inside, sys.executable, "-c", HOST_PROGRAM], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        try:
            if host.stdout.readline() != "LISTENS\n":
                raise VMError("the host's program does not start")
            guest = boot(
                env,
                DRIVER + f"""
                load ixgbe
                a=$(interface 0000:00:05.0) || exit 1
                up $a 10.0.0.2/24
                says "{env.count(10, 100)} packets received" ping -q -c {env.count(10, 100)} -i 0.05 -W 5 10.0.0.1
                # UDP, whose checksum the card makes and the host verifies.
                says "10.9.8.7" nslookup -type=a card.test 10.0.0.1
                data 20
                echo "DATA $(md5sum </data)."
                nc 10.0.0.1 5000 </data || fail "cannot connect to the host"
                nc -l -p 5000 <>/hold | md5sum >/received &
                wait_until 10 sh -c 'netstat -ltn | grep -q ":5000 "' || fail "nobody listens"
                echo GUEST-LISTENS
                wait
                echo "GOT $(cat /received)."
                is rx_missed_errors $(ethtool -S $a | sed -n 's/^ *rx_missed_errors: //p') 0
                kernel_is_quiet
                """,
                [vfio_user_device(path, addr="5")],
                timeout=230,
            )
            guest.wait_for("GUEST-LISTENS", timeout=200)
            expect_same("the host got from the guest", host.stdout.readline().split()[1], guest.wait_for("DATA ").split()[1])
            host.stdin.write("\n")
            host.stdin.flush()
            sent = host.stdout.readline().split()[1]
            expect_same("the guest got from the host", guest.wait_for("GOT ", timeout=100).split()[1], sent)
            guest.expect_success()
            if host.wait(20) != 0:
                raise VMError("the host's program failed")
            counters = command(*inside, "cat", "/proc/net/snmp")
            for kind in ("Tcp", "Udp"):
                names, values = re.findall(rf"^{kind}: (.*)$", counters, re.MULTILINE)
                found = dict(zip(names.split(), values.split()))
                expect_same(f"{kind} checksum errors", found["InCsumErrors"], "0")
            if int(found["InDatagrams"]) == 0:
                raise VMError("no UDP datagram came")
        finally:
            host.kill()
            host.wait()
            server.stop()


def expect_same(what, found, wanted):
    if found != wanted:
        raise VMError(f"{what}: {found}, not {wanted}")


def toeplitz(key, data):
    """The hash of receive-side scaling: for each set bit of the data, 32 bits of the key from there on."""
    bits = int.from_bytes(key, "big")
    hash = 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            hash ^= bits >> (8 * len(key) - 32 - place) & 0xFFFFFFFF
    return hash


@needs("qemu-new", "ixy_static", timeout=280)
def scenario_linux_ixgbe_queues(env):
    """With four queues, each of Linux's TCP flows stays on the one queue that its hash names, and all carry some."""
    server, devices = serve(env, LINKS)
    guest = boot(
        env,
        TWO_CARDS + """
        both
        ip -n one neighbor replace 10.0.0.2 lladdr 02:00:00:00:00:0b dev $a nud permanent
        ip -n two neighbor replace 10.0.0.1 lladdr 02:00:00:00:00:0a dev $b nud permanent
        says "Combined:.*4" ip netns exec two ethtool -l $b
        ip netns exec two ethtool -x $b
        echo TABLE-ENDS
        packets() { for queue in 0 1 2 3; do counter two $b rx_queue_${queue}_packets; done; }
        dd if=/dev/urandom of=/data bs=1k count=300 2>/dev/null
        read ports
        # Neighbour and multicast messages of the start are over.
        sleep 1
        for port in $ports; do
          before=$(packets)
          transfer one two 10.0.0.2 $port
          set -- $before
          after=$(packets)
          line="FLOW $port"
          for now in $after; do line="$line $((now - $1))"; shift; done
          echo "$line."
        done

        # All at once, to a port of their own each.
        read ports
        set -- $(packets)
        for port in $ports; do
          mkfifo /hold$port
          ip netns exec two sh -c "nc -l -p $((port + 1000)) <>/hold$port | md5sum >/received.$port" &
        done
        listening() { [ $(ip netns exec two netstat -ltn | grep -c LISTEN) = $(echo $ports | wc -w) ]; }
        wait_until 20 listening || fail "not all listen"
        connected() { ip netns exec one netstat -tn | grep ":$1 " | grep -q ESTABLISHED; }
        for port in $ports; do
          source_port one $port
          {
            until [ -e /go ]; do sleep 0.1; done
            cat /data
          } | ip netns exec one nc 10.0.0.2 $((port + 1000)) &
          wait_until 20 connected $port || fail "no connection from port $port"
        done
        touch /go
        wait
        for port in $ports; do
          is "what came by port $port" "$(cat /received.$port)" "$(md5sum </data)"
        done
        for now in $(packets); do
          [ $now -gt $1 ] || fail "a queue carries nothing"
          shift
        done
        is rx_missed_errors $(counter two $b rx_missed_errors) 0
        kernel_is_quiet
        """,
        devices,
        smp=4,
        timeout=270,
    )
    guest.wait_for("TABLE-ENDS", timeout=120)
    start = next(i for i, line in enumerate(guest.lines) if "indirection table" in line)
    text = guest.lines[start:]
    table = [int(queue) for line in text if re.match(r"^ +\d+: ", line) for queue in line.split()[1:]]
    key = next(bytes.fromhex(line.replace(":", "")) for line in text if re.match(r"^([0-9a-f]{2}:){39}", line))
    expect_same("the entries of the table", len(table), 128)

    def ports(target):
        """{own port: queue} of as many flows for each queue; `target` is the other port of a flow."""
        chosen = {}
        for port in range(40000, 50000):
            flow = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + port.to_bytes(2, "big") + target(port).to_bytes(2, "big")
            queue = table[toeplitz(key, flow) & 0x7F]
            if list(chosen.values()).count(queue) < env.count(2, 8):
                chosen[port] = queue
        expect_same("queues with flows", sorted(set(chosen.values())), [0, 1, 2, 3])
        return chosen

    wanted = ports(lambda _: 5000)
    guest.type(" ".join(map(str, wanted)))
    guest.type(" ".join(map(str, ports(lambda port: port + 1000))))
    guest.expect_success()
    for port, queue in wanted.items():
        counts = [int(word) for word in guest.wait_for(f"FLOW {port} ").rstrip(".").split()[2:]]
        # 300 kB are some 207 frames or more, and handshakes.
        used = [number for number, count in enumerate(counts) if count]
        if used != [queue] or counts[queue] < 200:
            raise VMError(f"the flow from port {port} should be on queue {queue} alone: {counts}")
    expect_server_alive(server)


@needs("qemu-new", "ixy_static", timeout=200)
def scenario_linux_ixgbe_x540(env):
    """Linux's ixgbe brings up our X540, with its PHY behind MDIO."""
    server, devices = serve(env, LINKS, family="x540")
    guest = boot(
        env,
        TWO_CARDS + """
        both
        says "Port: Twisted Pair" ip netns exec one ethtool $a
        says "Speed: 10000Mb/s" ip netns exec one ethtool $a
        is "the device" $(cat /sys/bus/pci/devices/0000:00:05.0/device) 0x1528
        ping_from one 10 10.0.0.2
        data 2
        transfer one two 10.0.0.2
        transfer two one 10.0.0.1
        kernel_is_quiet
        """,
        devices,
    )
    guest.expect_success()
    expect_server_alive(server)


def held_by(server):
    """What a server holds: (file descriptors, KiB of guests' memory that it has mapped)."""
    process = f"/proc/{server.process.pid}"
    mapped = 0
    with open(f"{process}/maps") as maps:
        for line in maps:
            # QEMU's name for the guest's memory; the card's own registers are in a memfd, too.
            if "memory-backend-memfd" in line:
                start, end = (int(word, 16) for word in line.split()[0].split("-"))
                mapped += (end - start) // 1024
    return len(os.listdir(f"{process}/fd")), mapped


@needs("qemu-new", "ixy_static", timeout=290)
def scenario_linux_ixgbe_life(env):
    """Linux's ixgbe goes down and up, is unloaded, rebound and reset, behind an IOMMU, and nothing leaks."""
    server, devices = serve(env, LINKS)
    downs, loads = env.count(3, 10), env.count(2, 5)
    guest = boot(
        env,
        DRIVER + f"""
        pause() {{ echo "PAUSE $1."; read word; }}
        cards() {{
          a=$(interface 0000:00:05.0) || exit 1
          b=$(interface 0000:00:06.0) || exit 1
          namespace two $b 10.0.0.2/24
          up $a 10.0.0.1/24
        }}
        works() {{ says "3 packets received" ping -q -c 3 -i 0.05 -W 5 "$@" 10.0.0.2; kernel_is_quiet; }}
        card=/sys/bus/pci/devices/0000:00:05.0

        pause boot
        for i in $(seq {loads}); do
          load ixgbe
          cards
          works
          rmmod ixgbe
          pause unloaded-$i
        done
        load ixgbe
        cards
        works
        pause up-0
        for i in $(seq {downs}); do
          ip link set $a down
          up $a
          works
          pause up-$i
        done

        echo 0000:00:05.0 > /sys/bus/pci/drivers/ixgbe/unbind
        echo 0000:00:05.0 > /sys/bus/pci/drivers/ixgbe/bind
        a=$(interface 0000:00:05.0) || exit 1
        up $a 10.0.0.1/24
        works
        echo REBOUND

        # Function-level reset, first while nobody looks, then under the driver's hands.
        grep -q flr $card/reset_method || fail "no flr: $(cat $card/reset_method)"
        echo flr > $card/reset_method
        receiver=$(printf 0x%x $(($(cut -d' ' -f1 $card/resource | head -1) + 0x3000)))
        is "RXCTRL before the reset" $(devmem $receiver 32) 0x00000001
        echo 1 > $card/reset
        is "RXCTRL after the reset" $(devmem $receiver 32) 0x00000000
        ip link set $a down
        echo 1 > $card/reset
        up $a
        works
        echo FLR

        data 2
        for size in 9000 1500; do
          ip link set $a mtu $size
          ip -n two link set $b mtu $size
          wait_until 15 has_carrier $a || fail "no link at MTU $size"
          in_namespace two wait_until 15 has_carrier $b || fail "no link at MTU $size"
          before=$(ethtool -S $a | sed -n 's/^ *tx_pkts_nic: //p')
          works -s $((size - 28))
          after=$(ethtool -S $a | sed -n 's/^ *tx_pkts_nic: //p')
          # Three frames and a few of ARP: nothing was cut.
          [ $((after - before)) -le 8 ] || fail "$((after - before)) frames for three pings of MTU $size"
          transfer_to two 10.0.0.2
        done
        echo MTU

        for size in 64 4096; do
          ethtool -G $a rx $size tx $size || fail "ring of $size"
          ip netns exec two ethtool -G $b rx $size tx $size
          wait_until 15 has_carrier $a || fail "no link with rings of $size"
          in_namespace two wait_until 15 has_carrier $b || fail "no link with rings of $size"
          is "RX rings" "$(ethtool -g $a | sed -n 's/^RX:[^0-9]*//p' | tr '\\n' ' ')" "4096 $size "
          works
          transfer_to two 10.0.0.2
        done
        echo RINGS

        rmmod ixgbe
        pause end
        kernel_is_quiet
        """,
        devices,
        viommu=True,
        append="iomem=relaxed",
        timeout=280,
    )

    def pause(name):
        guest.wait_for(f"PAUSE {name}.", timeout=120)
        held = held_by(server)
        guest.type()
        return held

    idle = pause("boot")
    for number in range(1, loads + 1):
        expect_same(f"descriptors and memory held after unloading {number} times", pause(f"unloaded-{number}"), idle)
    first = pause("up-0")
    if first[1] <= idle[1]:
        raise VMError("the driver's mappings do not show: nothing would be noticed")
    for number in range(1, downs + 1):
        files, memory = pause(f"up-{number}")
        # Buffers of one page each, of which some more or less are mapped at a time.
        if files != first[0] or memory > first[1] + 256:
            raise VMError(f"after {number} times down and up the server holds {files} files, {memory} KiB; first {first}")
    expect_same("descriptors and memory held at the end", pause("end"), idle)
    guest.expect_success()
    print(f"held without a driver {idle}, with one {first}")
    expect_server_alive(server)


@needs("qemu-new", "ixy_static", timeout=200)
def scenario_linux_ixgbe_self_test(env):
    """All five of ixgbe's own offline tests pass on our card, where every access is a message."""
    server, devices = serve(env, LINKS, options=["--no-shared-tails"])
    guest = boot(
        env,
        TWO_CARDS + f"""
        both
        in="ip netns exec one"
        for i in $(seq {env.count(1, 5)}); do
          result=$($in ethtool -t $a offline)
          echo "$result"
          is "tests passed" $(echo "$result" | grep -c '(o[nfo/]*line)[^0-9]*0$') 5
          says "result is PASS" echo "$result"
          in_namespace one wait_until 15 has_carrier $a || fail "no link after the test"
        done
        ping_from one 5 10.0.0.2
        data 2
        transfer one two 10.0.0.2
        kernel_is_quiet
        """,
        devices,
    )
    guest.expect_success()
    expect_server_alive(server)
