"""Linux's own ixgbe driver, and DPDK's, drive our emulated 82599 in a guest, over vfio-user."""

from vm import VMError, needs, vfio_user_device

MAC = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]
LINKS = [f"link,peer=x,mac={mac}" for mac in MAC]

# Functions for the guest's tests, and the driver's first minute: cards $a and $b at slots 5 and 6.
DRIVER = """
# kernel_is_quiet: fails if the kernel has warned of anything since the driver came.
# What a slow host makes it say of clocks is not ours.
kernel_is_quiet() {
  _said=$(dmesg -r | grep '^<[0-4]>' | grep -v -e clocksource -e hrtimer)
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

# transfer FROM TO ADDRESS [PORT]: the file /data by TCP from namespace to namespace, unchanged.
transfer() {
  ip netns exec $2 sh -c "nc -l -p 5000 <>/hold | md5sum >/received" &
  wait_until 10 listens $2 || fail "nobody listens in $2"
  ip netns exec $1 nc ${4:+-p $4} $3 5000 </data || fail "cannot connect from $1 to $3"
  wait
  is "what came from $1 to $2" "$(cat /received)" "$(md5sum </data)"
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
