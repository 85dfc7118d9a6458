// iommufd, the successor of VFIO's containers (Linux 6.2; device nodes since 6.6): numbers and structures,
// for older headers lack them.
#pragma once
#include <linux/vfio.h>
#include <stdint.h>

// Every structure begins with its own size.
struct ixy_iommufd_alloc { uint32_t size, flags, out_id; };
struct ixy_iommufd_range { uint64_t start, last; };
struct ixy_iommufd_ranges {
  uint32_t size, id, count, reserved;
  uint64_t ranges, out_alignment;
};
struct ixy_iommufd_map {
  uint32_t size, flags, id, reserved;
  uint64_t address, length, iova;
};
struct ixy_iommufd_unmap {
  uint32_t size, id;
  uint64_t iova, length;
};
struct ixy_vfio_bind { uint32_t size, flags; int32_t iommufd; uint32_t out_device; };
struct ixy_vfio_attach { uint32_t size, flags, id; };

static const unsigned long IXY_IOMMU_IOAS_ALLOC = _IO(';', 0x81);
static const unsigned long IXY_IOMMU_IOAS_IOVA_RANGES = _IO(';', 0x84);
static const unsigned long IXY_IOMMU_IOAS_MAP = _IO(';', 0x85);
static const unsigned long IXY_IOMMU_IOAS_UNMAP = _IO(';', 0x86);
static const unsigned long IXY_VFIO_DEVICE_BIND_IOMMUFD = _IO(';', 118);
static const unsigned long IXY_VFIO_DEVICE_ATTACH_IOMMUFD_PT = _IO(';', 119);
// At this IOVA and no other; writable; readable.
static const unsigned IXY_IOMMU_MAP_FLAGS = 1 | 2 | 4;
