"""Builds and reads the few kinds of frames that scenarios send."""

import struct

BROADCAST = b"\xff" * 6


def mac(text):
    """The six bytes of "52:54:00:00:00:01"."""
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    """The four bytes of "10.0.0.1"."""
    return bytes(map(int, text.split(".")))


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination, source, kind, payload):
    """A frame of at least 60 bytes."""
    return (destination + source + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def arp_request(source, source_ip, target_ip):
    """Who has `target_ip`? Addresses as bytes."""
    fields = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return ethernet(
        BROADCAST, source, 0x0806, fields + source + source_ip + bytes(6) + target_ip
    )


def arp_reply_of(frame):
    """(MAC, IP address) that an ARP reply tells; None for any other frame."""
    if frame[12:14] != b"\x08\x06" or frame[20:22] != b"\0\x02":
        return None
    return frame[22:28], frame[28:32]


def ipv4(source, target, protocol, payload):
    """An IPv4 packet without options."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    head += source + target
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def echo_request(destination, source, source_ip, target_ip, sequence, data):
    """A ping."""
    icmp = struct.pack("!BBHHH", 8, 0, 0, 0x1234, sequence) + data
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    return ethernet(destination, source, 0x0800, ipv4(source_ip, target_ip, 1, icmp))


def echo_reply_of(frame):
    """(sequence, data) of a ping's answer; None for any other frame."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 1 or frame[34] != 0:
        return None
    length = struct.unpack("!H", frame[16:18])[0]
    return struct.unpack("!H", frame[40:42])[0], frame[42 : 14 + length]


def udp(destination, source, source_ip, target_ip, data, ports=(1024, 9)):
    """A UDP datagram without checksum."""
    head = struct.pack("!HHHH", *ports, 8 + len(data), 0)
    return ethernet(destination, source, 0x0800, ipv4(source_ip, target_ip, 17, head + data))
