//! What the fuzzers feed to the library, and what must hold of it whatever it is.
//!
//! The targets in `fuzz/` call these functions with what coverage leads them to; the tests in
//! `fuzzed.rs` with the seeds, with what once was a finding, and with variations of both. So a
//! finding is a test as soon as its input is in `regressions/`.

// Each of the two uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

mod archives;
mod domains;
mod files;
mod host;
mod seeds;
mod texts;

/// One kind of input.
pub struct Target {
    /// Its name: that of the target in `fuzz/`, of its corpus and of its regressions.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
    /// Where to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longer inputs find nothing that shorter ones do not, and take their time.
    pub longest: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "pci_address", run: texts::pci_address, seeds: seeds::addresses, longest: 64 },
    Target { name: "id_list", run: texts::id_list, seeds: seeds::lists, longest: 256 },
    Target { name: "size", run: texts::size, seeds: seeds::sizes, longest: 64 },
    Target { name: "attributes", run: files::attributes, seeds: seeds::attributes, longest: 1024 },
    Target { name: "distances", run: files::distances, seeds: seeds::distances, longest: 1024 },
    Target { name: "maps", run: files::maps, seeds: seeds::maps, longest: 2048 },
    Target { name: "leases", run: files::leases, seeds: seeds::leases, longest: 1024 },
    Target { name: "manifest", run: files::manifest, seeds: seeds::manifests, longest: 4096 },
    Target { name: "setup", run: files::setup, seeds: seeds::setups, longest: 4096 },
    Target { name: "domain", run: domains::domain, seeds: seeds::domains, longest: 8192 },
    Target { name: "stanza", run: domains::stanza, seeds: seeds::stanzas, longest: 8192 },
    Target {
        name: "definition",
        run: domains::definition,
        seeds: seeds::definitions,
        longest: 8192,
    },
    Target { name: "archive", run: archives::archive, seeds: seeds::archives, longest: 65536 },
];

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("no such target")
}
