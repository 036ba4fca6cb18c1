//! Metadata of files.

use crate::values::DeviceNumber;

/// The result of stat for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// Type of the file.
    pub kind: FileKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID of the owner.
    pub gid: u32,
    /// Identity of the file on the running host; `None` elsewhere, where it is not compared.
    pub file: Option<FileId>,
}

/// Identifies a file of the running host: the device of its file system (not the device that the
/// file may be) and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device of the file system.
    pub device: DeviceNumber,
    /// Inode number.
    pub inode: u64,
}

/// Types of files that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file: the only type that is ever opened for reading.
    Regular,
    /// A directory.
    Directory,
    /// A character device with this number.
    CharDevice(DeviceNumber),
    /// A block device, FIFO or socket.
    Other,
}
