//! What is known of a file without opening it.

use crate::values::DeviceNumber;

/// What stat says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// What kind of file it is.
    pub kind: FileKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// Which file it is on the running host; `None` elsewhere, where nothing compares it.
    pub file: Option<FileId>,
}

/// What makes a file of the running host the same as another: the device that holds it (not the
/// one that it may be) and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device that holds it.
    pub device: DeviceNumber,
    /// Its inode.
    pub inode: u64,
}

/// The kinds of file that make a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file: the only kind that is ever opened for reading.
    Regular,
    /// A directory.
    Directory,
    /// A character device of this number.
    CharDevice(DeviceNumber),
    /// A block device, FIFO or socket.
    Other,
}
