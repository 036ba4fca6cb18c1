//! Configuration files of other programs, as far as they concern EGM.

pub(super) mod apparmor;
pub(super) mod kubelet;
pub(super) mod qemu_conf;
pub(super) mod runtime;
