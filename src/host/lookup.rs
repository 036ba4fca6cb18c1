//! Finding what was asked for, and saying what there is instead.

use std::collections::BTreeSet;

use super::region::Region;
use super::scan::{Class, Host};
use crate::values::{PciAddress, RegionName};

/// Why something that was asked for is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFound {
    /// The host has no region at all, as far as its class tells.
    #[error("{asked}{}", no_egm(*class))]
    NoEgm {
        /// What was asked for, as the beginning of a sentence; may be empty.
        asked: String,
        /// What the class is like.
        class: Class,
    },
    /// It has others.
    #[error(
        "no region {name}; this host has {}",
        known.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ")
    )]
    Region {
        /// The region that was asked for.
        name: RegionName,
        /// Those that there are.
        known: Vec<RegionName>,
    },
    /// It has no such GPU.
    #[error("no GPU {address} on this host{}", instead(*address, known))]
    Gpu {
        /// The address that was asked for.
        address: PciAddress,
        /// Those that would do.
        known: BTreeSet<PciAddress>,
    },
}

impl NotFound {
    /// That a host has no EGM, where something of it was asked for.
    #[must_use]
    pub(crate) fn no_egm(host: &Host, asked: impl Into<String>) -> Self {
        Self::NoEgm { asked: asked.into(), class: host.class }
    }

    /// That a host has no such GPU, and which of `known` may be meant.
    #[must_use]
    pub fn gpu(host: &Host, address: PciAddress, known: BTreeSet<PciAddress>) -> Self {
        if known.is_empty() && host.regions.is_empty() {
            Self::no_egm(host, format!("no GPU {address}, and "))
        } else {
            Self::Gpu { address, known }
        }
    }
}

impl Host {
    /// The region of this name.
    ///
    /// # Errors
    /// There is none; the error says which there are.
    pub fn find_region(&self, name: &RegionName) -> Result<&Region, NotFound> {
        self.region(name).ok_or_else(|| {
            if self.regions.is_empty() {
                return NotFound::no_egm(self, format!("{name}: "));
            }
            let known = self.regions.iter().map(|region| region.name.clone()).collect();
            NotFound::Region { name: name.clone(), known }
        })
    }
}

/// What to say to somebody who asked for an address that is not there: `; did you mean ..?`.
pub(crate) fn instead(address: PciAddress, known: &BTreeSet<PciAddress>) -> String {
    match address.nearest(known) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None if known.is_empty() => String::new(),
        None => {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            format!("; this host has {}", known.join(", "))
        }
    }
}

/// Why a host has no regions, for people.
#[must_use]
pub(crate) fn no_egm(class: Class) -> &'static str {
    match class {
        Class::Listed => {
            "no EGM region on this host: /sys/class/egm is empty (EGM is off in the firmware, or \
             no GPU is bound to the driver)"
        }
        Class::Absent => {
            "no EGM region on this host: there is no /sys/class/egm (the driver is not loaded)"
        }
        Class::Unreadable => {
            "whether this host has EGM regions is not known: /sys/class/egm cannot be read"
        }
    }
}
