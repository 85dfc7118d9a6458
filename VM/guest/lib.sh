# Functions for the guest's /test.sh; init reads this file first.

# fail MESSAGE: ends the test, and with it the guest.
fail() { echo "GUEST-FAILED: $*"; exit 1; }

# busybox's shell would run its own small `ip`, whatever the PATH says.
ip() { /sbin/ip "$@"; }

# wait_until SECONDS COMMAND...: runs COMMAND until it succeeds; fails after SECONDS.
wait_until() {
  _left=$(($1 * 10)); shift
  until "$@" >/dev/null 2>&1; do
    [ $_left -gt 0 ] || return 1
    _left=$((_left - 1)); sleep 0.1
  done
}

# load MODULE...: inserts kernel modules, each after those that it depends on.
# /lib/modules/order has a line for each: "ixgbe: xfrm_algo.ko ... mdio.ko dca.ko ixgbe.ko".
load() {
  for _name; do
    _files=$(sed -n "s/^$_name: //p" /lib/modules/order)
    [ -n "$_files" ] || fail "load: the guest has no module $_name"
    for _file in $_files; do
      _loaded=$(echo "${_file%.ko}" | tr - _)
      [ -d "/sys/module/$_loaded" ] || insmod "/lib/modules/$_file" || fail "load: $_file"
    done
  done
}

# pci_address VENDOR:DEVICE [N]: the address of the N-th such PCI device (from 1), as in 0000:00:04.0.
pci_address() {
  for _dev in /sys/bus/pci/devices/*; do
    [ "$(cut -c3- $_dev/vendor):$(cut -c3- $_dev/device)" = "$1" ] && echo "${_dev##*/}"
  done | sed -n "${2:-1}p" | grep .
}

# pci_driver ADDRESS: the driver that has the PCI device; nothing and status 1 if none.
pci_driver() { [ -e /sys/bus/pci/devices/$1/driver ] && basename "$(readlink /sys/bus/pci/devices/$1/driver)"; }

# unbind ADDRESS: takes the PCI device from its driver, if it has one.
unbind() {
  [ ! -e /sys/bus/pci/devices/$1/driver ] || echo $1 > /sys/bus/pci/devices/$1/driver/unbind
}

# bind ADDRESS DRIVER: gives the PCI device to DRIVER, whose module is loaded.
bind() {
  unbind $1
  echo $2 > /sys/bus/pci/devices/$1/driver_override
  echo $1 > /sys/bus/pci/drivers_probe
  [ "$(pci_driver $1)" = $2 ] || fail "bind: $1 has driver '$(pci_driver $1)', not $2"
}

# release ADDRESS: undoes bind; the next driver that is loaded or probed may take the device.
release() { unbind $1; echo > /sys/bus/pci/devices/$1/driver_override; }

# iommu_group ADDRESS: the number of the device's IOMMU group; status 1 without an IOMMU.
iommu_group() {
  [ -e /sys/bus/pci/devices/$1/iommu_group ] && basename "$(readlink /sys/bus/pci/devices/$1/iommu_group)"
}

# bind_vfio ADDRESS [UID]: gives the device to vfio-pci and its group to UID (1000 unless told).
bind_vfio() {
  load vfio_iommu_type1 vfio-pci
  bind $1 vfio-pci
  _group=$(iommu_group $1) || fail "bind_vfio: $1 has no IOMMU group; boot the guest with viommu=True"
  wait_until 60 test -e /dev/vfio/$_group || fail "bind_vfio: no /dev/vfio/$_group"
  chown ${2:-1000} /dev/vfio/$_group
  chmod 666 /dev/vfio/vfio
}

# as_user COMMAND...: runs COMMAND as the ordinary user 1000, who may lock LOCKED_KIB of memory.
as_user() { ( ulimit -l ${LOCKED_KIB:-131072}; exec asuser 1000 "$@" ); }

# huge_pages COUNT: sets the number of 2 MiB pages and makes sure that the kernel found that many.
huge_pages() {
  echo $1 > /proc/sys/vm/nr_hugepages
  [ "$(cat /proc/sys/vm/nr_hugepages)" = $1 ] || fail "huge_pages: only $(cat /proc/sys/vm/nr_hugepages) of $1"
}

# interface ADDRESS: the network interface of the PCI device, which may take some seconds to appear.
interface() {
  wait_until 60 find_interface $1 || fail "interface: $1 has none (driver '$(pci_driver $1)')" >&2
  find_interface $1
}
# The second path is where virtio-net has it: below its own bus.
find_interface() { ls /sys/bus/pci/devices/$1/net /sys/bus/pci/devices/$1/virtio*/net 2>/dev/null | grep -v -e : -e '^$'; }

# has_carrier INTERFACE: true while the link is up.
has_carrier() { [ "$(cat /sys/class/net/$1/carrier 2>/dev/null)" = 1 ]; }

# has_no_carrier INTERFACE: true while the link is down (a pulled cable, not `ip link set down`).
has_no_carrier() { [ "$(cat /sys/class/net/$1/carrier 2>/dev/null)" = 0 ]; }

# up INTERFACE [ADDRESS/BITS]: brings an interface up, quietly (no IPv6), and waits for its link.
up() {
  [ ! -d /proc/sys/net/ipv6/conf/$1 ] || echo 1 > /proc/sys/net/ipv6/conf/$1/disable_ipv6
  [ -z "$2" ] || ip address add $2 dev $1 || fail "up: $1 refuses the address $2"
  ip link set $1 up || fail "up: $1"
  wait_until 60 has_carrier $1 || fail "up: $1 has no link"
}

# in_namespace NAME COMMAND...: runs COMMAND, one of these functions too, in a network namespace.
# The new /sys, in a mount namespace of its own, shows that network namespace's interfaces.
in_namespace() {
  _namespace=$1; shift
  ip netns exec $_namespace sh -c '. /lib.sh; "$@"' sh "$@"
}

# namespace NAME INTERFACE ADDRESS/BITS: makes a network namespace and moves the interface into it.
namespace() {
  [ -e /run/netns/$1 ] || ip netns add $1 || fail "namespace: $1"
  ip link set $2 netns $1 || fail "namespace: $2 cannot move to $1"
  in_namespace $1 up $2 $3 || fail "namespace: $2 in $1"
}
