"""What the tools say of a machine and of its cards, inside guests."""

import re

from vm import VMError, needs, numa_bus

DOCTOR = """
# doctor CARD: runs it as an ordinary user; what it says is in /out.
doctor() { rm -f /out; as_user ixy doctor "$@" >/out 2>&1; }
# well CARD: nothing is missing.
well() { doctor $1 && ! grep MISSING /out || fail "it is not content: $(cat /out)"; }
# says STATE CHECK TEXT: of CHECK it says TEXT, or names it in the command that mends it.
says() {
  grep -A1 "^$1 *$2  " /out | grep -q -e "$3" || fail "no '$1 $2 ... $3' in: $(cat /out)"
  echo "NAMED $2"
}
# lacks CARD CHECK TEXT: CHECK is all that is missing.
lacks() {
  doctor $1 && fail "without $2 it is content: $(cat /out)"
  [ $(grep -c ^MISSING /out) = 1 ] || fail "more than $2 is missing: $(cat /out)"
  says MISSING "$2" "$3"
}
"""


@needs("qemu-new", "ixy_static", timeout=400)
def scenario_doctor_names_what_is_missing(env):
    """ixy doctor names each piece that is taken away, one at a time, as an ordinary user behind the IOMMU."""
    port, old, other = env.port("one"), env.port("old"), env.port("other")
    guest = env.guest(
        DOCTOR
        + """
        card=$(pci_address 8086:10d3) || fail "there is no e1000e"
        pages=/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
        node=/dev/vfio/$(iommu_group $card)

        doctor $card && fail "without vfio-pci it is content: $(cat /out)"
        says MISSING vfio-pci "sudo modprobe vfio-pci"
        says MISSING "kernel driver" "sudo ixy bind --user .USER $card"
        bind_vfio $card
        well $card

        echo 0 >/proc/sys/vm/nr_hugepages
        lacks $card "huge pages" "sudo sysctl vm.nr_hugepages=512"
        huge_pages 96
        LOCKED_KIB=8192
        lacks $card "locked memory" memlock
        LOCKED_KIB=131072
        chown root $node
        lacks $card rights "sudo chown .USER $node"
        chown 1000 $node
        chmod 600 /dev/vfio/vfio
        lacks $card rights "sudo chmod 666 /dev/vfio/vfio"
        chmod 666 /dev/vfio/vfio
        echo 0 >$pages
        well $card
        says note NUMA "node 1"
        says note NUMA "sudo tee $pages"
        echo 48 >$pages
        well $card
        says ok NUMA "node 1"

        # Two cards that the IOMMU cannot tell apart, one of them the kernel's.
        old=$(pci_address 15ad:07b0 1) && other=$(pci_address 15ad:07b0 2) || fail "there are no two vmxnet3"
        load vmxnet3
        bind_vfio $old
        lacks $old "IOMMU group" "sudo ixy bind $other"
        bind $other vfio-pci
        well $old

        # With the kernel's driver: the interface is up, and its cable is pulled.
        release $card
        load e1000e
        echo $card >/sys/bus/pci/drivers_probe
        name=$(interface $card) || exit 1
        up $name
        doctor $card && fail "an interface that is up is no trouble: $(cat /out)"
        says MISSING "in use" "sudo ip link set $name down"
        says ok link "$name has a link"
        echo PULL
        wait_until 60 has_no_carrier $name || fail "the cable is still there"
        doctor $card
        says note link "$name has no link"
        """,
        qemu="new", viommu=True, huge_pages=96, memory=768, smp=2, numa=2,
        files={"/bin/ixy": env.ixy_static},
        devices=[
            numa_bus(1, "near", 64),
            port.nic("e1000e", bus="near"),
            # Behind a bridge to conventional PCI nobody can tell whose request it is.
            ("-device", "pcie-pci-bridge,id=old,addr=5"),
            old.nic("vmxnet3", bus="old", addr="1"),
            other.nic("vmxnet3", bus="old", addr="2"),
        ],
    )  # fmt: skip
    guest.wait_for("PULL")
    guest.set_link(port, False)
    guest.expect_success()


@needs("ixy_static", timeout=200)
def scenario_doctor_misses_the_iommu(env):
    """Without an IOMMU ixy doctor tells an ordinary user that it is missing, and root what that means."""
    guest = env.guest(
        DOCTOR
        + """
        card=$(pci_address 15ad:07b0)
        lacks $card IOMMU "intel_iommu=on"
        ixy doctor $card >/out || fail "root needs none: $(cat /out)"
        says note IOMMU "through sysfs"
        """,
        huge_pages=64,
        files={"/bin/ixy": env.ixy_static},
        devices=[env.port("one").nic("vmxnet3")],
    )
    guest.expect_success()


@needs("qemu-new", "ixy_static", timeout=400)
def scenario_registers_have_names(env):
    """ixy info --registers and ixy trace name every register of QEMU's cards that our drivers touch."""
    cards = {
        "e1000e": ("8086:10d3", {"addr": "8"}, "e1000e", "CTRL_EXT RCTL TDT"),
        "igb": ("8086:10c9", {"addr": "4"}, "igb", "CTRL_EXT RCTL SRRCTL"),
        "vmxnet3": ("15ad:07b0", {"addr": "a"}, "vmxnet3", "DSAL CMD TXPROD"),
        "modern": (
            "1af4:1041", {"addr": "c", "disable_legacy": "on"}, "virtio-net-pci",
            "device_status queue_select queue_notify",
        ),
        "legacy": (
            "1af4:1000", {"addr": "d", "disable_modern": "on"}, "virtio-net-pci",
            "device_status queue_select queue_notify",
        ),
    }  # fmt: skip
    guest = env.guest(
        """
        # inspect KIND DRIVER ID: what the tools say of a card.
        inspect() {
          card=$(pci_address $3) || fail "there is no $1"
          rm -f /out /err /trace
          ixy info --registers $card >/out 2>/err || fail "info $1: $(cat /out /err)"
          grep -q "^driver  *$2" /out || fail "info $1: $(cat /out)"
          echo "INFO-$1 $(sed -n '/^[A-Za-z_]*\\(\\[[0-9]*\\]\\)\\?  *0x/s/ .*//p' /out | tr '\\n' ' ')"
          ixy trace --frames 20 --format json $card >/trace 2>/err || fail "trace $1: $(cat /err)"
          grep -q '"kind":"write"' /trace || fail "trace $1: $(head -5 /trace)"
          echo "TRACE-$1 $(sed -n 's/.*"register":"\\([^"[]*\\).*/\\1/p' /trace | sort -u | tr '\\n' ',')"
        }
        """
        + "\n".join(
            f"inspect {kind} {'virtio' if 'virtio' in model else model} {ids}"
            for kind, (ids, _, model, _) in cards.items()
        ),
        qemu="new", huge_pages=64, files={"/bin/ixy": env.ixy_static},
        devices=[env.port(kind).nic(model, **place) for kind, (_, place, model, _) in cards.items()],
    )  # fmt: skip
    guest.expect_success()
    for kind, (_, _, _, wanted) in cards.items():
        shown = guest.wait_for(f"INFO-{kind} ").split()[1:]
        traced = guest.wait_for(f"TRACE-{kind} ").split(" ", 1)[1].strip(",").split(",")
        print(f"{kind}: {len(shown)} registers shown, {len(traced)} traced")
        if nameless := [name for name in traced if re.match("register 0x", name)]:
            raise VMError(f"{kind}: the trace has no names for {nameless}")
        if missing := [name for name in wanted.split() if name not in traced]:
            raise VMError(f"{kind}: the trace has no {missing}: {traced}")
        if len(shown) < 8:
            raise VMError(f"{kind}: info shows only {shown}")
