"""Linux's own ixgbe driver, and DPDK's, drive our emulated 82599 in a guest, over vfio-user."""

import contextlib
import mmap
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time

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

# pings COUNT ADDRESS [OPTION...]: every echo comes back. First one, with three tries: on a busy host the kernel may give
# up to ask for a neighbour, after three seconds, and then drops what has waited for it.
pings() {
  _count=$1; _to=$2; shift 2
  _tries=3
  until $_in ping -q -c 1 -W 5 "$@" $_to >/dev/null 2>&1; do
    _tries=$((_tries - 1))
    [ $_tries -gt 0 ] || fail "no echo of $_to"
  done
  says "$_count packets received" $_in ping -q -c $_count -i 0.05 -W 60 "$@" $_to
}
# ping_from NAMESPACE COUNT ADDRESS [OPTION...]: the same from a namespace.
ping_from() { _in="ip netns exec $1"; shift; pings "$@"; _in=; }

# source_port NAMESPACE PORT: the next connection's own port; busybox's nc cannot choose.
source_port() { ip netns exec $1 sysctl -q -w net.ipv4.ip_local_port_range="$2 $2"; }

# transfer FROM TO ADDRESS [PORT]: the file /data by TCP from namespace to namespace, unchanged.
transfer() {
  ip netns exec $2 sh -c "nc -l -p 5000 <>/hold | md5sum >/received" &
  wait_until 60 listens $2 || fail "nobody listens in $2"
  [ -z "$4" ] || source_port $1 $4
  ip netns exec $1 nc $3 5000 </data || fail "cannot connect from $1 to $3"
  wait
  is "what came from $1 to $2" "$(cat /received)" "$(md5sum </data)"
}
# transfer_to NAMESPACE ADDRESS: the same from the guest's own network.
transfer_to() {
  ip netns exec $1 sh -c "nc -l -p 5000 <>/hold | md5sum >/received" &
  wait_until 60 listens $1 || fail "nobody listens in $1"
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


@needs("qemu-new", "ixy_static", timeout=1200)
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
        wait_until 60 agree one $a tx_pkts_nic two $b rx_pkts_nic || fail "the second card has not counted all frames"
        wait_until 60 agree two $b tx_pkts_nic one $a rx_pkts_nic || fail "the first card has not counted all frames"
        wait_until 60 agree one $a rx_packets one $a rx_pkts_nic || fail "the driver and the card disagree"
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
        # A fixed neighbour, so that every ping is a frame; the kernel's own few frames without a tag do pass.
        ip -n one neigh add 10.6.0.2 lladdr $(ip netns exec two cat /sys/class/net/$b/address) dev other
        before=$(counter two $b rx_packets)
        ip netns exec one ping -q -c 50 -i 0.02 -W 1 10.6.0.2 >/dev/null && fail "an answer without a VLAN"
        more=$(($(counter two $b rx_packets) - before))
        [ $more -lt 25 ] || fail "$more frames came of a VLAN that is not there, or nearly"
        kernel_is_quiet

        for name in one two; do
          # InErrs and InCsumErrors of TCP, InCsumErrors of UDP.
          is "TCP's errors in $name" "$(ip netns exec $name awk '/^Tcp: [0-9]/ {{ print $14, $16 }}' /proc/net/snmp)" "0 0"
          echo "RETRANSMITTED $name $(ip netns exec $name awk '/^Tcp: [0-9]/ {{ print $13 }}' /proc/net/snmp)"
        done
        """,
        devices,
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
for pair in sys.argv[1:]:
    here, there = pair.split(",")
    listener = socket.create_server((here, 5000), family=socket.AF_INET6 if ":" in here else socket.AF_INET)
    print("LISTENS", flush=True)
    connection = listener.accept()[0]
    digest = hashlib.md5()
    while data := connection.recv(1 << 16):
        digest.update(data)
    connection.close()
    listener.close()
    print("RECEIVED", digest.hexdigest(), flush=True)
    sys.stdin.readline()
    data = os.urandom(20 << 20)
    print("SENDS", hashlib.md5(data).hexdigest(), flush=True)
    with socket.create_connection((there, 5000)) as connection:
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


@needs("qemu-new", "ixy_static", "tap", timeout=900)
def scenario_linux_ixgbe_host(env):
    """Linux's ixgbe reaches the host's own TCP/IP stack, IPv4 and IPv6, through our card and a tap interface."""
    with host_namespace() as name:
        inside = ["ip", "netns", "exec", name]
        path = env.path("card")
        server = env.server(
            [*inside, env.ixy_static, "emulate", "82599", "--socket", path, "--wire", "tap,name=ixy0"], [path]
        )
        # VLANs are tested between two cards: not every host's kernel has them.
        pairs = [("10.0.0.1", "10.0.0.2")]
        command("ip", "-n", name, "address", "add", "10.0.0.1/24", "dev", "ixy0")
        try:
            command("ip", "-n", name, "address", "add", "fd00::1/64", "dev", "ixy0", "nodad")
            pairs.append(("fd00::1", "fd00::2"))
        except VMError as error:
            print(f"the host has no IPv6, which is not tested: {error}")
        words = [",".join(pair) for pair in pairs]
        host = subprocess.Popen([*inside, sys.executable, "-c", HOST_PROGRAM, *words], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        try:
            guest = boot(
                env,
                DRIVER + f"""
                load ixgbe
                a=$(interface 0000:00:05.0) || exit 1
                up $a 10.0.0.2/24
                sysctl -q -w net.ipv6.conf.$a.disable_ipv6=0
                ip address add fd00::2/64 dev $a nodad
                # UDP, whose checksum the card makes and the host verifies.
                says "10.9.8.7" nslookup -type=a card.test 10.0.0.1
                data 20
                echo "DATA $(md5sum </data)."
                for host in {" ".join(here for here, _ in pairs)}; do
                  pings {env.count(10, 100)} $host
                  echo "READY $host."
                  read word
                  nc $host 5000 </data || fail "cannot connect to $host"
                  nc -l -p 5000 <>/hold | md5sum >/received &
                  wait_until 60 sh -c 'netstat -ltn | grep -q ":5000 "' || fail "nobody listens"
                  echo "GUEST-LISTENS $host."
                  wait
                  echo "GOT $host $(cat /received)."
                done
                is rx_missed_errors $(ethtool -S $a | sed -n 's/^ *rx_missed_errors: //p') 0
                kernel_is_quiet
                """,
                [vfio_user_device(path, addr="5")],
            )
            for here, _ in pairs:
                guest.wait_for(f"READY {here}.")
                if host.stdout.readline() != "LISTENS\n":
                    raise VMError(f"the host's program does not listen at {here}")
                guest.type()
                guest.wait_for(f"GUEST-LISTENS {here}.")
                expect_same(f"{here} got from the guest", host.stdout.readline().split()[1], guest.wait_for("DATA ").split()[1])
                host.stdin.write("\n")
                host.stdin.flush()
                sent = host.stdout.readline().split()[1]
                expect_same(f"the guest got from {here}", guest.wait_for(f"GOT {here} ").split()[2], sent)
            guest.expect_success()
            if host.wait(60) != 0:
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


@needs("qemu-new", "ixy_static", timeout=600)
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
        wait_until 60 listening || fail "not all listen"
        connected() { ip netns exec one netstat -tn | grep ":$1 " | grep -q ESTABLISHED; }
        for port in $ports; do
          source_port one $port
          {
            until [ -e /go ]; do sleep 0.1; done
            cat /data
          } | ip netns exec one nc 10.0.0.2 $((port + 1000)) &
          wait_until 60 connected $port || fail "no connection from port $port"
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
    )
    guest.wait_for("TABLE-ENDS")
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


@needs("qemu-new", "ixy_static", timeout=600)
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


@needs("qemu-new", "ixy_static", timeout=1200)
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
        works() {{ pings 3 10.0.0.2 "$@"; kernel_is_quiet; }}
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
          wait_until 60 has_carrier $a || fail "no link at MTU $size"
          in_namespace two wait_until 60 has_carrier $b || fail "no link at MTU $size"
          before=$(ethtool -S $a | sed -n 's/^ *tx_pkts_nic: //p')
          works -s $((size - 28))
          after=$(ethtool -S $a | sed -n 's/^ *tx_pkts_nic: //p')
          # Four frames and a few of ARP: nothing was cut. Of 9,000 bytes in pieces of 1,500 there were 28.
          [ $((after - before)) -le 20 ] || fail "$((after - before)) frames for four pings of MTU $size"
          transfer_to two 10.0.0.2
        done
        echo MTU

        for size in 64 4096; do
          ethtool -G $a rx $size tx $size || fail "ring of $size"
          ip netns exec two ethtool -G $b rx $size tx $size
          wait_until 60 has_carrier $a || fail "no link with rings of $size"
          in_namespace two wait_until 60 has_carrier $b || fail "no link with rings of $size"
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
    )

    def pause(name):
        guest.wait_for(f"PAUSE {name}.")
        held = server.held()
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


@needs("qemu-new", "ixy_static", timeout=600)
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
          in_namespace one wait_until 60 has_carrier $a || fail "no link after the test"
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


@needs("qemu-new", "ixy_static", "dpdk", timeout=600)
def scenario_dpdk_testpmd(env):
    """DPDK's testpmd in a guest forwards between two of our cards, by vfio-pci behind an IOMMU."""
    ports = [env.port("left"), env.port("right")]
    server, devices = serve(env, [f"{port.wire()},mac={mac}" for port, mac in zip(ports, MAC)])
    guest = boot(
        env,
        """
        bind_vfio 0000:00:05.0 0
        bind_vfio 0000:00:06.0 0
        huge_pages 64
        echo BOUND
        dpdk-testpmd -l 0,1 -a 0000:00:05.0 -a 0000:00:06.0 -- --forward-mode=io --auto-start \\
          --total-num-mbufs=4096 --nb-cores=1 2>&1
        """,
        devices,
        archives=[env.dpdk()],
        viommu=True,
        smp=2,
        memory=768,
        huge_pages=64,
    )
    guest.wait_for("Press enter to exit")
    count = env.count(300, 20000)
    for source, target in (ports, ports[::-1]):
        sent = [test_frame(number, 60 + number * 1454 // count) for number in range(count)]
        got = []
        # As many at a time as the socket between the two holds.
        for start in range(0, count, 50):
            source.send_all(sent[start : start + 50], per_second=1000)
            for number in range(start, min(start + 50, count)):
                what = f"frame {number} of {count}"
                got.append(target.expect(lambda frame: frame[12:14] == b"\x88\xb5", timeout=60, what=what))
        if got != sent:
            changed = sum(a != b for a, b in zip(got, sent))
            raise VMError(f"{source.name} to {target.name}: {changed} of {count} frames came changed or in another order")
    guest.type()
    guest.expect_success()
    text = "\n".join(guest.lines)
    for port in (0, 1):
        if not re.search(rf"Forward statistics for port {port} .*\n +RX-packets: {count} ", text):
            raise VMError(f"testpmd has not counted {count} frames on port {port}")
    expect_server_alive(server)


def test_frame(number, size):
    """A frame of an experimental type, with bytes that follow from its number."""
    head = bytes.fromhex("02000000000c" "02000000000d" "88b5") + number.to_bytes(4, "big")
    return head + bytes((number * 7 + place) & 0xFF for place in range(size - len(head)))


class RawClient:
    """A vfio-user client that says what it likes."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.number = 0
        self.call(1, struct.pack("<HH", 0, 1) + b'{"capabilities":{"max_msg_fds":8}}\0')

    def send(self, kind, payload, flags=0, files=()):
        self.number = (self.number + 1) & 0xFFFF
        message = struct.pack("<HHIII", self.number, kind, 16 + len(payload), flags, 0) + payload
        socket.send_fds(self.socket, [message], files)

    def call(self, kind, payload, files=()):
        """Sends a command; returns the payload of its answer, None for an error."""
        self.send(kind, payload, files=files)
        head = self._take(16)
        _, _, size, flags, _ = struct.unpack("<HHIII", head)
        payload = self._take(size - 16)
        return None if flags & 0x20 else payload

    def _take(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise VMError("the server has closed the connection")
            data += part
        return data

    def map(self, file, offset, iova, size, flags):
        if self.call(2, struct.pack("<IIQQQ", 32, flags, offset, iova, size), files=[file]) is None:
            raise VMError("the server refuses a mapping")

    def write(self, region, offset, value, size=4):
        payload = struct.pack("<QII", offset, region, size) + (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.send(10, payload, flags=0x10)

    def read(self, region, offset, size=4):
        return self.call(9, struct.pack("<QII", offset, region, size))


def storm(path, seed, rounds):
    """Maps some memory, and fills registers and descriptors with nonsense. Returns whether the memory around
    what was mapped is untouched."""
    chance = random.Random(seed)
    page, pages = 4096, 64
    readable, writable = range(16, 20), range(20, 48)
    canary = bytes((place * 37 + 11) & 0xFF for place in range(page))
    file = os.memfd_create("storm")
    os.ftruncate(file, page * pages)
    memory = mmap.mmap(file, page * pages)
    memory[:] = canary * pages
    # What is written here, and not by the card.
    own = bytearray(memory)
    client = RawClient(path)
    base = 0x100000
    client.map(file, readable[0] * page, base + readable[0] * page, len(readable) * page, 1)
    client.map(file, writable[0] * page, base + writable[0] * page, len(writable) * page, 3)
    client.write(7, 4, 0x407, 2)

    def value():
        kinds = [0, 0xFFFFFFFF, 1 << chance.randrange(32), chance.getrandbits(32),
                 chance.randrange(600), base + chance.randrange(page * pages)]  # fmt: skip
        return chance.choice(kinds)

    def rings():
        # Nonsense in which the card can work a little: rings that lie in the memory or beside it.
        client.write(0, 0x4240, 0x8C0F | chance.choice([0, 0x8000]))
        client.write(0, 0x5080, 0x702)
        client.write(0, 0x3000, 1)
        client.write(0, 0x4A80, 1)
        for bank in (0x1000, 0x6000, 0x1040, 0x6040):
            client.write(0, bank + 0x28, 0)
            client.write(0, bank, base + chance.randrange(pages) * page + chance.choice([0, 0x80, 0xF80]))
            client.write(0, bank + 4, chance.choice([0, 0, 0, value()]))
            client.write(0, bank + 8, chance.choice([0, 128, 0x1000, 0x20000, value()]))
            client.write(0, bank + 0x14, chance.choice([0x02000402, value()]))
            client.write(0, bank + 0x28, 1 << 25 | value())
            client.write(0, bank + 0x18, chance.randrange(300))
        for _ in range(40):
            place = chance.choice(writable) * page + 16 * chance.randrange(page // 16)
            descriptor = (base + chance.randrange(page * pages)).to_bytes(8, "little") + chance.choice([
                chance.getrandbits(64), 0x2B000000 | 1500 | 1514 << 46, 0x0B000040, 0xFB0000FF | chance.getrandbits(64)
            ]).to_bytes(8, "little")  # fmt: skip
            memory[place : place + 16] = own[place : place + 16] = descriptor

    for _ in range(rounds):
        rings()
        for _ in range(60):
            # 1, 2 and 8 bytes, too, and places that are not aligned.
            size = chance.choice([4, 4, 4, 4, 1, 2, 8])
            offset = chance.choice([chance.randrange(0x20000), chance.choice((0x1000, 0x6000)) + chance.randrange(0x80)])
            client.write(0, offset & ~3 if size == 4 else offset, value(), size)
        client.write(chance.choice([2, 4, 6, 7, 9]), chance.randrange(4096), value())
        client.write(7, 4, 0x407, 2)
        client.write(7, 0x48, 0, 1)
        if client.read(0, 8) is None:
            raise VMError("STATUS cannot be read after the storm")
    client.socket.close()
    untouched = [page_number for page_number in range(pages) if page_number not in writable]
    ok = all(memory[number * page : (number + 1) * page] == canary for number in untouched)
    if memory[:] == own:
        raise VMError("the card has written nothing: this was no storm")
    memory.close()
    os.close(file)
    return ok


@needs("qemu-new", "ixy_static", timeout=600)
def scenario_linux_ixgbe_nonsense(env):
    """After a client's and a guest's nonsense in registers and descriptors the server serves on, and says what it refused."""
    server, devices = serve(env, LINKS)
    held = server.held()
    for seed in range(env.count(4, 40)):
        if not storm(env.path(f"card{seed % 2}"), seed, 30):
            raise VMError(f"seed {seed}: memory that was not mapped for it has changed")
        expect_server_alive(server)
    if "refused to" not in server.stderr:
        raise VMError("the server has refused nothing, or not said it")
    guest = boot(
        env,
        TWO_CARDS + """
        both
        ping_from one 3 10.0.0.2
        bar=$(cut -d' ' -f1 /sys/bus/pci/devices/0000:00:05.0/resource | head -1)
        poke() { devmem $(printf 0x%x $((bar + $1))) 32 $2; }
        # Rings, tails, filters, vectors: under the driver's hands.
        for value in 0xffffffff 0xdeadbeef 0; do
          for register in $((0x1000)) $((0x1008)) $((0x1018)) $((0x6000)) $((0x6004)) $((0x6018)) $((0x6010)) \\
            $((0x1028)) $((0x6028)) $((0x2100)) $((0x4240)) $((0x4268)) $((0x5088)) $((0xec80)) $((0x900)) \\
            $((0x808)) $((0x820)) $((0x898)) $((0x5818)) $((0x4a80)) $((0x3000)) $((0x10010)) $((0x28)); do
            poke $register $value
          done
          ip netns exec one ping -q -c 1 -W 1 10.0.0.2 >/dev/null
        done
        dmesg -c >/dev/null
        rmmod ixgbe
        dmesg -c >/dev/null
        load ixgbe
        a=$(interface 0000:00:05.0) || exit 1
        b=$(interface 0000:00:06.0) || exit 1
        both
        ping_from one 3 10.0.0.2
        kernel_is_quiet
        """,
        devices,
        append="iomem=relaxed",
    )
    guest.expect_success()
    expect_server_alive(server)
    guest.kill()
    deadline = time.monotonic() + 60
    while (now := server.held()) != held:
        if time.monotonic() > deadline:
            raise VMError(f"the server holds {now} after the guest, {held} before")
        time.sleep(0.1)
