//! Writes the list of the `pci-ids` crate as the text that such lists are everywhere else, and links
//! the program with one shared library less.
//!
//! Linked in as it is, the crate's table of references costs every start of the program more than
//! a millisecond: the loader relocates each of its forty thousand strings. As text it costs
//! nothing until a name is looked up in it, and that by the same search as in the host's own list.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

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
    link_unwinder();
}

/// Takes the unwinder from the compiler's archive where it has one. A program that aborts where it
/// panics hardly needs one, but the standard library names it, and to load and relocate
/// `libgcc_s.so` is a tenth of a start. Whoever uses the library decides for themselves.
fn link_unwinder() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if env::var_os("CARGO_FEATURE_CLI").is_none()
        || !is("CARGO_CFG_TARGET_OS", "linux")
        || !is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        return;
    }
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let asked = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    let Ok(answer) = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    else {
        return;
    };
    // Without such an archive the answer is the name alone.
    let archive = Path::new(answer.trim());
    if let Some(folder) = archive.parent().filter(|_| archive.is_absolute() && archive.is_file()) {
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
