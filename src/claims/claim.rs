//! A claim on a region: by a process, a libvirt domain or a reservation.

use std::path::PathBuf;

use super::leases::LeaseClaim;
use super::ranges::Ranges;
use crate::values::{Bytes, named};

/// A claim on a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// A process holds it.
    Process(ProcessClaim),
    /// A domain of libvirt is defined with it.
    Libvirt(LibvirtClaim),
    /// It is reserved. Reservations are advisory.
    Lease(LeaseClaim),
}

/// A process that maps a region or has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessClaim {
    /// The process.
    pub pid: u32,
    /// The name of its program.
    pub command: Option<String>,
    /// Its user.
    pub uid: Option<u32>,
    /// The name of its user.
    pub user: Option<String>,
    /// The virtual machine that it runs, or whose memory it shares.
    pub domain: Option<String>,
    /// How it holds the region.
    pub via: Via,
    /// The process whose memory it shares, such as the QEMU of a vhost-user back end.
    pub helper_of: Option<u32>,
    /// The mapped parts; empty if it only has the device open.
    pub ranges: Ranges,
}

named! {
    /// How a process holds a region. The later of several counts.
    #[derive(Default)]
    #[non_exhaustive]
    pub enum Via {
        /// It has the device open.
        #[default]
        Fd = "fd",
        /// It has a dma-buf that the driver exported.
        DmaBuf = "dma-buf",
        /// It maps a copy of the region: what it writes does not reach the region.
        Private = "private",
        /// It maps the region.
        Shared = "shared",
    }
}

impl ProcessClaim {
    /// A process of which only the mapped parts are known.
    #[must_use]
    pub fn new(pid: u32, ranges: Ranges) -> Self {
        let via = if ranges.iter().next().is_some() { Via::Shared } else { Via::Fd };
        let (command, uid, user, domain, helper_of) = Default::default();
        Self { pid, command, uid, user, domain, via, helper_of, ranges }
    }
}

/// A domain whose definition has a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LibvirtClaim {
    /// The domain.
    pub domain: String,
    /// Whether it is running, according to its status file; its process was not found.
    pub is_running: bool,
    /// The size of the region's part in the definition.
    pub size: Option<Bytes>,
    /// The file of the definition.
    pub file: PathBuf,
}

impl LibvirtClaim {
    /// A domain that is off and has a definition of unknown size.
    #[must_use]
    pub fn new(domain: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self { domain: domain.into(), is_running: false, size: None, file: file.into() }
    }
}

impl Claim {
    /// The owner of the claim.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        match self {
            Self::Process(ProcessClaim { pid, domain, helper_of, .. }) => {
                let owner = Owner::Process(helper_of.unwrap_or(*pid));
                domain.as_deref().map_or(owner, Owner::Domain)
            }
            Self::Libvirt(claim) => Owner::Domain(&claim.domain),
            Self::Lease(claim) => Owner::Domain(&claim.domain),
        }
    }

    /// Whether its process shares the memory of that of another claim.
    pub(crate) fn is_helper_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Process(helper), Self::Process(owner)) => helper.helper_of == Some(owner.pid),
            _ => false,
        }
    }

    /// Whether it is that of a process that shares another one's memory.
    #[must_use]
    pub fn is_helper(&self) -> bool {
        matches!(self, Self::Process(process) if process.helper_of.is_some())
    }

    /// Whether the region is held now, as opposed to after a virtual machine is started.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match self {
            Self::Process(_) => true,
            Self::Libvirt(claim) => claim.is_running,
            Self::Lease(_) => false,
        }
    }
}

/// The owner of a claim: a virtual machine, otherwise a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Owner<'a> {
    /// The virtual machine with this name.
    Domain(&'a str),
    /// The process with this ID.
    Process(u32),
}

impl Claim {
    /// A short form such as `qemu-system-aarch64[4242]`, `vm1[4242]`, `vm1(off)` or
    /// `vm1(reserved)`. The names come from processes and files, so callers must escape them for
    /// output.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Process(ProcessClaim { pid, command, domain, .. }) => {
                let name = domain.as_ref().or(command.as_ref()).map_or("", String::as_str);
                format!("{name}[{pid}]")
            }
            Self::Libvirt(LibvirtClaim { domain, is_running: true, .. }) => domain.clone(),
            Self::Libvirt(LibvirtClaim { domain, .. }) => format!("{domain}(off)"),
            Self::Lease(LeaseClaim { domain, .. }) => format!("{domain}(reserved)"),
        }
    }
}
