//! The fuzz targets: functions that feed an input to the library and check conditions for any input.
//!
//! The targets in `fuzz/` call these functions with coverage-guided inputs; the tests in `fuzzed.rs`
//! with the seeds, past findings, and variations of both. A finding becomes a test when its input is
//! added to `regressions/`.

// Each of the two uses only a part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

mod archives;
mod domains;
mod files;
mod host;
mod seeds;
mod texts;

/// One kind of input.
pub struct Target {
    /// The name of the target in `fuzz/`, of its corpus and of its regressions.
    pub name: &'static str,
    /// Panics if a condition is violated.
    pub run: fn(&[u8]),
    /// The initial inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The maximum length of inputs; longer ones are slow and find nothing more.
    pub longest: usize,
}

/// All targets.
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
    Target { name: "nodes", run: files::nodes, seeds: seeds::nodes, longest: 2048 },
    Target { name: "explain", run: texts::explain, seeds: seeds::errors, longest: 512 },
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
