//! What speaks against a plan: who, why, and what would do.

use crate::host::{Driver, NotFound};
use crate::values::text::{SHOWN, excerpt, excerpts, printable};
use crate::values::{Bytes, Moment, PciAddress, RegionName};

/// What speaks against a plan, or should be known of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Objection {
    /// What was asked for is not there.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A GPU that belongs to no region.
    #[error("GPU {address} belongs to no EGM region ({}){hint}", driver.in_words())]
    NotEgm {
        /// The GPU.
        address: PciAddress,
        /// What it is bound to.
        driver: Driver,
        /// What to do, or which GPU may be meant.
        hint: String,
    },
    /// A GPU that two regions name.
    #[error(
        "GPU {address} is named by {first} and by {second}, so whose memory it is to have is not known"
    )]
    TwoRegions {
        /// The GPU.
        address: PciAddress,
        /// One region.
        first: RegionName,
        /// The other.
        second: RegionName,
    },
    /// A region that names no GPU, to which an EGM device must belong.
    #[error(
        "{region} names no GPU, and an EGM device belongs to one; look at `egm-probe show {region}`"
    )]
    NoGpus {
        /// The region.
        region: RegionName,
    },
    /// A region whose size is not known has no share.
    #[error("the size of {region} is not known, so neither is a GPU's share of it; give --size")]
    NoSize {
        /// The region.
        region: RegionName,
    },
    /// A region whose shares cannot be written.
    #[error(
        "{region}: {} bytes divided among {gpus} GPUs are not a multiple of {step} for each ({})",
        size.0,
        instead.map_or("the region is too small".into(), |size| format!("use --size {} or less", in_mib(size)))
    )]
    UnevenShare {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Bytes,
        /// How many GPUs it has.
        gpus: usize,
        /// The multiple that a share must be.
        step: Bytes,
        /// The most that each of them can have.
        instead: Option<Bytes>,
    },
    /// A size that libvirt or QEMU would round.
    #[error(
        "--size: {} bytes are not a multiple of {step} (use {})",
        size.0,
        near.iter().map(|size| in_mib(*size)).collect::<Vec<_>>().join(" or ")
    )]
    Unaligned {
        /// The size.
        size: Bytes,
        /// The multiple that it must be.
        step: Bytes,
        /// The nearest sizes that can be used.
        near: Vec<Bytes>,
    },
    /// More than there is.
    #[error(
        "{region} has {} ({} bytes), and {} bytes are asked for{}{}{}",
        size, size.0, asked,
        if *gpus == 1 { String::new() } else { format!(", {each} for each of {gpus} GPUs") },
        if kept.0 == 0 { String::new() } else {
            format!(", with {} bytes that the domain has for other GPUs", kept.0)
        },
        most.map_or(String::new(), |most| format!("; --size {} would do, or less", in_mib(most)))
    )]
    TooLarge {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Bytes,
        /// What its GPUs would have, in bytes.
        asked: u128,
        /// What each of the plan's GPUs would have of it.
        each: Bytes,
        /// How many of these there are.
        gpus: u64,
        /// What of that is for GPUs that are not the plan's: the domain has it already.
        kept: Bytes,
        /// What each of the plan's GPUs can have at most.
        most: Option<Bytes>,
    },
    /// An alias that does not last in libvirt.
    #[error(
        "libvirt does not keep the alias `{}`: one begins with `ua-`, and has only letters, digits, `-` and `_`",
        excerpt(alias, SHOWN)
    )]
    BadAlias {
        /// The alias.
        alias: String,
    },
    /// One alias for several GPUs.
    #[error("--alias is for one GPU, and this is {gpus}; --alias-prefix numbers them")]
    OneAlias {
        /// How many GPUs there are.
        gpus: usize,
    },
    /// The alias is another device's.
    #[error(
        "another device of the domain has the alias `{}`; choose another with --alias",
        printable(alias)
    )]
    AliasTaken {
        /// The alias.
        alias: String,
    },
    /// One cell for two regions.
    #[error(
        "guest NUMA node {cell} cannot have memory of {} and of {second}; --guest-node {second}=N with another N",
        excerpt(first, SHOWN)
    )]
    CellOfTwo {
        /// The cell.
        cell: u32,
        /// One of them.
        first: String,
        /// The other.
        second: RegionName,
    },
    /// A cell that cannot be.
    #[error("guest NUMA node {cell}: QEMU has 0 to {last}")]
    CellBeyond {
        /// The cell.
        cell: u32,
        /// The last that there can be.
        last: usize,
    },
    /// A cell that the guest keeps for a GPU's own memory.
    #[error(
        "guest NUMA node {cell} is a GPU's own (<acpi nodeset>), and cannot have memory of {region}"
    )]
    CellOfGpu {
        /// The cell.
        cell: u32,
        /// The region.
        region: RegionName,
    },
    /// One cell where each region needs its own.
    #[error(
        "--guest-node {cell} is for one region, and this is {}; write --guest-node {}={cell}",
        regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(" and "),
        regions.first().map_or("egm4", RegionName::as_str)
    )]
    WhichRegion {
        /// The cell.
        cell: u32,
        /// The regions of the plan.
        regions: Vec<RegionName>,
    },
    /// A cell for a region that is not of the plan.
    #[error("--guest-node {region}={cell}: {region} is not among what was chosen")]
    NotChosen {
        /// The region.
        region: RegionName,
        /// The cell.
        cell: u32,
    },
    /// More cells than QEMU has.
    #[error("the guest would have {cells} NUMA nodes, and QEMU has at most {limit}")]
    TooManyCells {
        /// How many there would be.
        cells: usize,
        /// How many there can be.
        limit: usize,
    },
    /// Somebody else has the region.
    #[error("{region} is in use by {}", excerpts(holders))]
    InUse {
        /// The region.
        region: RegionName,
        /// Who has it.
        holders: Vec<String>,
    },
    /// A machine of the domain's name has the region.
    #[error(
        "{region} is in use by {}, which the domain is taken to be by its name",
        excerpts(holders)
    )]
    Own {
        /// The region.
        region: RegionName,
        /// Who has it.
        holders: Vec<String>,
    },
    /// The region is kept for somebody else.
    #[error("{region} is reserved for {} until {until}", excerpt(owner, SHOWN))]
    Reserved {
        /// The region.
        region: RegionName,
        /// Whom it is kept for.
        owner: String,
        /// Until when.
        until: Moment,
    },
    /// Nothing was said of what is wanted, and nothing is kept for whom it is for.
    #[error(
        "nothing is reserved for {}; name --gpu, --region or --all, or reserve first",
        excerpt(owner, SHOWN)
    )]
    NothingReserved {
        /// Whom it is for.
        owner: String,
    },
    /// A GPU that the region may have besides those that it names: then shares are smaller.
    #[error(
        "GPU {peer} ({}) is of the same kind and NUMA node as those of {region}, whose driver lists only the GPUs bound to it",
        driver.as_deref().map_or_else(|| "no driver".into(), |name| format!("driver {}", excerpt(name, SHOWN)))
    )]
    SuspectedPeer {
        /// The region.
        region: RegionName,
        /// The GPU.
        peer: PciAddress,
        /// What it is bound to.
        driver: Option<String>,
        /// The share of each, with it.
        share: Option<Bytes>,
    },
    /// A GPU that is not there.
    #[error("GPU {address}, which {region} names, is not there: it was taken out, or is not seen")]
    Gone {
        /// The GPU.
        address: PciAddress,
        /// The region.
        region: RegionName,
    },
    /// Whether somebody has the region is not known.
    #[error("who holds {region} is not known{}", if *skipped { "" } else { ": not everything that may hold it could be seen" })]
    Unknown {
        /// The region.
        region: RegionName,
        /// Whether nobody looked.
        skipped: bool,
    },
    /// Virtual machines that are off have the region, too.
    #[error(
        "{region} is also defined with {}; only one of them can run at a time",
        excerpts(domains)
    )]
    Defined {
        /// The region.
        region: RegionName,
        /// Their names.
        domains: Vec<String>,
    },
    /// Some but not all GPUs of a region.
    #[error(
        "{} shares {region} and is not taken; one virtual machine should have every GPU of a region (--peers)",
        list_gpus(missing)
    )]
    Partial {
        /// The region.
        region: RegionName,
        /// Its other GPUs.
        missing: Vec<PciAddress>,
    },
    /// A GPU that is not ready to be passed through.
    #[error(
        "GPU {address} is not bound for passthrough ({}); bind it to nvgrace_gpu_vfio_pci",
        driver.in_words()
    )]
    Driver {
        /// The GPU.
        address: PciAddress,
        /// What it is bound to.
        driver: Driver,
    },
}

/// How much weight an objection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Weight {
    /// A warning, unless the rules are to be kept strictly.
    Advice,
    /// Refused, unless forced.
    Refusal,
    /// Impossible.
    Impossible,
}

impl Objection {
    /// What would do, where it is refused and need not be.
    #[must_use]
    pub fn way_out(&self) -> Option<String> {
        Some(match self {
            Self::InUse { .. } => {
                "--for NAME if that is the virtual machine itself, --force to go on regardless"
                    .into()
            }
            Self::Reserved { .. } => {
                "--for NAME if that is whom it is for, --force to go on regardless".into()
            }
            Self::Gone { .. } => "--force to go on regardless".into(),
            Self::SuspectedPeer { share: Some(share), .. } => format!(
                "bind it, or give --size ({} leaves it its share), or --force for a share without it",
                in_mib(*share)
            ),
            Self::SuspectedPeer { share: None, .. } => {
                "give --size, or --force for a share without it".into()
            }
            _ => return None,
        })
    }

    /// How much weight it has.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self {
            Self::Unknown { .. }
            | Self::Own { .. }
            | Self::Defined { .. }
            | Self::Partial { .. }
            | Self::Driver { .. } => Weight::Advice,
            Self::NoGpus { .. }
            | Self::InUse { .. }
            | Self::Reserved { .. }
            | Self::SuspectedPeer { .. }
            | Self::Gone { .. } => Weight::Refusal,
            _ => Weight::Impossible,
        }
    }
}

fn list_gpus(gpus: &[PciAddress]) -> String {
    let list: Vec<_> = gpus.iter().map(ToString::to_string).collect();
    format!("GPU {}", list.join(", GPU "))
}

/// A size as an option takes it.
fn in_mib(size: Bytes) -> String {
    format!("{}MiB", size.0 >> 20)
}
