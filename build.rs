//! Writes the list of the `pci-ids` crate as the text that such lists are everywhere else.
//!
//! Linked in as it is, the crate's table of references costs every start of the program more than
//! a millisecond: the loader relocates each of its forty thousand strings. As text it costs
//! nothing until a name is looked up in it, and that by the same search as in the host's own list.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pci_ids::Vendors;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut vendors: Vec<_> = Vendors::iter().collect();
    vendors.sort_by_key(|vendor| vendor.id());
    let mut list = String::new();
    for vendor in vendors {
        writeln!(list, "{:04x}  {}", vendor.id(), vendor.name()).expect("a string takes all");
        for device in vendor.devices() {
            writeln!(list, "\t{:04x}  {}", device.id(), device.name()).expect("a string takes all");
        }
    }
    let folder = env::var_os("OUT_DIR").expect("cargo says where to write");
    fs::write(Path::new(&folder).join("pci.ids"), list).expect("cargo's folder can be written");
}
