//! System calls that `std` and `rustix` do not wrap whole.
#![allow(unsafe_code)] // two ioctls of block devices

use std::os::fd::AsFd;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::ioctl::{self, Getter, Opcode, Setter, opcode};

/// `BLKGETSIZE64`: bytes of a block device.
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
/// `BLKDISCARD`: `[offset, length]` in bytes.
const BLKDISCARD: Opcode = opcode::none(0x12, 119);

/// Size of a block device in bytes.
pub(crate) fn device_bytes(device: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: the request writes one u64 through the pointer that `Getter` passes.
    unsafe { ioctl::ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }
}

/// Takes room for a stretch of a file; false when the file system cannot.
pub(crate) fn reserve(file: impl AsFd, offset: u64, length: u64) -> Result<bool, Errno> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Gives a stretch back to the file system or device.
pub(crate) fn discard(file: impl AsFd, block_device: bool, offset: u64, length: u64) -> Result<(), Errno> {
    if !block_device {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        return rustix::fs::fallocate(file, mode, offset, length);
    }
    // SAFETY: the request reads two u64, which is what `Setter` passes a pointer to.
    unsafe { ioctl::ioctl(file, Setter::<BLKDISCARD, [u64; 2]>::new([offset, length])) }
}
