//! Configuration files of other programs, as far as they concern EGM.

pub(super) mod apparmor;
pub(super) mod qemu_conf;
