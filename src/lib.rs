//! Discovery of EGM, the Extended GPU Memory of NVIDIA Grace hosts.
//!
//! A Grace host hands a hidden part of each socket's memory, an EGM region with the device node
//! `/dev/egm<N>`, to a virtual machine as its RAM. This library finds the regions, the GPUs and
//! the NUMA nodes they belong to, whatever the generation of the driver.
//!
//! Data flows one way, and each step is a module:
//!
//! * [`sysroot`]: the files of a host, running or recorded;
//! * [`host`]: its regions, GPUs and NUMA nodes;
//! * [`claims`]: who holds a region, and whose it may become;
//! * [`capacity`]: what of each region is free;
//! * [`report`]: all of that together;
//! * [`sockets`]: what of it belongs together;
//! * [`plan`]: which GPUs of a virtual machine get which memory;
//! * [`stanza`]: that plan as libvirt's XML and as QEMU's arguments;
//! * [`output`]: what a person or a script reads.
//!
//! [`capture`] records a host into a file that replays it.
//!
//! [`doctor`] checks the whole way from the firmware to QEMU.
//!
//! [`domain`] reads the XML of virtual machines and knows no host; [`check`] holds one against the
//! other.
//!
//! Nothing here ever opens `/dev/egm<N>`: the driver would clear the whole region.
//!
//! # Features
//! `cli` (default) is the command line, `udev` (default) asks libudev for device links.

// No input may end the program other than by an exit code.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod capacity;
pub mod capture;
pub mod check;
pub mod claims;
pub mod doctor;
pub mod domain;
pub mod host;
pub mod id_list;
pub mod output;
pub mod pci;
pub mod plan;
pub mod report;
pub mod sockets;
pub mod stanza;
pub mod sysroot;
pub mod units;
pub mod warning;
pub mod watch;

/// The command line, for `main` alone: no promise is made of what is in it.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

/// The README's examples are tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

mod device_number;
#[cfg(feature = "cli")]
mod leasing;
#[cfg(feature = "cli")]
mod own_directory;
mod pause;
mod pci_names;
#[cfg(feature = "cli")]
mod program;
mod sysfs;
mod text;
mod udev_links;
// Without the command line nobody writes rules, and the checks need no more than to read them.
#[cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]
mod udev_rules;
#[cfg(feature = "cli")]
mod user_file;
