//! Looks up regions and GPUs, and suggests alternatives.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::region::Region;
use super::scan::{Class, Host};
use crate::values::text::shown;
use crate::values::{PciAddress, RegionName};

/// The reason why a region or GPU was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFound {
    /// The host has no regions.
    #[error("{asked}{}", no_egm(*class))]
    NoEgm {
        /// The subject, as the start of a sentence; may be empty.
        asked: String,
        /// The state of the driver's class.
        class: Class,
    },
    /// The host has other regions.
    #[error("no region {name}; this host has {}", list(known))]
    Region {
        /// The requested region.
        name: RegionName,
        /// The regions of the host.
        known: Vec<RegionName>,
    },
    /// The path does not lead to the device of a region.
    #[error("{}: not the device of a region; this host has {}", shown(path), list(known))]
    Path {
        /// The requested path.
        path: PathBuf,
        /// The regions of the host.
        known: Vec<RegionName>,
    },
    /// The host has no such GPU.
    #[error("no GPU {address} on this host{}", instead(*address, known))]
    Gpu {
        /// The requested address.
        address: PciAddress,
        /// The addresses that would be accepted.
        known: BTreeSet<PciAddress>,
    },
}

impl NotFound {
    /// The error for a request on a host without EGM.
    #[must_use]
    pub(crate) fn no_egm(host: &Host, asked: impl Into<String>) -> Self {
        Self::NoEgm { asked: asked.into(), class: host.class }
    }

    /// The error for a missing GPU, with a suggestion from `known`.
    #[must_use]
    pub fn gpu(host: &Host, address: PciAddress, known: BTreeSet<PciAddress>) -> Self {
        if known.is_empty() && host.regions.is_empty() {
            Self::no_egm(host, format!("no GPU {address}, and "))
        } else {
            Self::Gpu { address, known }
        }
    }

    /// The error for a GPU of no region, with a suggestion from those of all regions.
    pub(crate) fn gpu_of_region(host: &Host, address: PciAddress) -> Self {
        let gpus = host.regions.iter().flat_map(|region| &region.gpus);
        Self::gpu(host, address, gpus.map(|gpu| gpu.address).collect())
    }

    /// The error for a path that does not lead to a region.
    #[cfg(feature = "cli")]
    pub(crate) fn path(host: &Host, path: &std::path::Path) -> Self {
        if host.regions.is_empty() {
            return Self::no_egm(host, format!("{}: ", shown(path)));
        }
        Self::Path { path: path.to_owned(), known: known(host) }
    }
}

impl Host {
    /// The region with this name.
    ///
    /// # Errors
    /// The region does not exist; the error lists the existing ones.
    pub fn find_region(&self, name: &RegionName) -> Result<&Region, NotFound> {
        self.region(name).ok_or_else(|| {
            if self.regions.is_empty() {
                return NotFound::no_egm(self, format!("{name}: "));
            }
            NotFound::Region { name: name.clone(), known: known(self) }
        })
    }
}

fn known(host: &Host) -> Vec<RegionName> {
    host.regions.iter().map(|region| region.name.clone()).collect()
}

fn list(names: &[RegionName]) -> String {
    names.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ")
}

/// A suggestion for an address that does not exist: `; did you mean ..?`.
fn instead(address: PciAddress, known: &BTreeSet<PciAddress>) -> String {
    match address.nearest(known).as_slice() {
        [nearest] => format!("; did you mean {nearest}?"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(ToString::to_string).collect();
            format!("; did you mean {} or {last}?", first.join(", "))
        }
        [] if known.is_empty() => String::new(),
        [] => {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            format!("; this host has {}", known.join(", "))
        }
    }
}

/// The reason why a host has no regions, for people.
#[must_use]
pub(crate) fn no_egm(class: Class) -> &'static str {
    match class {
        Class::Listed => {
            "no EGM region on this host: /sys/class/egm is empty (EGM is disabled in the firmware, or \
             no GPU is bound to the driver)"
        }
        Class::Absent => {
            "no EGM region on this host: /sys/class/egm does not exist (the driver is not loaded)"
        }
        Class::NoEgm => {
            "no EGM region on this host: the driver is loaded and found no EGM (is it enabled in the \
             firmware?)"
        }
        Class::Unreadable => {
            "cannot determine whether this host has EGM regions: /sys/class/egm cannot be read"
        }
    }
}
