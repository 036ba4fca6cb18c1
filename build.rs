//! Writes NVIDIA's devices from the `pci-ids` crate's list in the format of `pci.ids`.
//!
//! As text, the names take 54 KB and no time at startup; linked in, the crate's table holds every
//! vendor, and the loader relocates each of its forty thousand strings.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pci_ids::{FromId as _, Vendor};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let nvidia = Vendor::from_id(0x10de).expect("the crate lists NVIDIA");
    let mut list = format!("{:04x}  {}\n", nvidia.id(), nvidia.name());
    for device in nvidia.devices() {
        writeln!(list, "\t{:04x}  {}", device.id(), device.name()).expect("a string takes all");
    }
    let folder = env::var_os("OUT_DIR").expect("cargo says where to write");
    fs::write(Path::new(&folder).join("pci.ids"), list).expect("cargo's folder can be written");
}
