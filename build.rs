//! Writes NVIDIA's devices from the `pci-ids` crate's list in the format of `pci.ids`, and links the
//! program with one shared library less.
//!
//! As text the names take 54 KB and nothing at the start of the program; linked in, the crate's
//! table holds every vendor, and the loader relocates each of its forty thousand strings.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

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
