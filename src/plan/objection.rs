//! Objections to a plan, with reasons and remedies.

use super::MachineObjection;
use crate::claims::LeaseClaim;
use crate::host::{Driver, NotFound};
use crate::values::text::{SHOWN, excerpt, excerpts, plural, printable};
use crate::values::{Bytes, PciAddress, RegionName};
use crate::warning::Warning;

/// An objection to a plan, or a warning about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Objection {
    /// The requested region or GPU does not exist.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// An objection to the machine around the devices.
    #[error(transparent)]
    Machine(#[from] MachineObjection),
    /// All regions are requested while the driver is being loaded or removed.
    #[error("the driver is being loaded or removed: this may not be every region; try again")]
    DriverChanging,
    /// A GPU that belongs to no region.
    #[error("GPU {address} belongs to no EGM region ({}){hint}", driver.in_words())]
    NotEgm {
        /// The GPU.
        address: PciAddress,
        /// The driver that it is bound to.
        driver: Driver,
        /// A remedy, or the GPU that may be meant.
        hint: String,
    },
    /// A GPU that two regions list.
    #[error(
        "GPU {address} is listed by both {first} and {second}; cannot tell which one it belongs to"
    )]
    TwoRegions {
        /// The GPU.
        address: PciAddress,
        /// One region.
        first: RegionName,
        /// The other.
        second: RegionName,
    },
    /// A region without GPUs; an EGM device requires one.
    #[error("{region} lists no GPU, but an EGM device requires one; see `egm-probe show {region}`")]
    NoGpus {
        /// The region.
        region: RegionName,
    },
    /// The driver does not list the GPUs of a region.
    #[error(
        "{region} does not list its GPUs; select them with --gpu, or use --force for those of its NUMA node"
    )]
    Inferred {
        /// The region.
        region: RegionName,
    },
    /// The device node is missing, or is another device.
    #[error("{region}: {problem}")]
    Node {
        /// The region.
        region: RegionName,
        /// The problem.
        problem: Warning,
    },
    /// A region of unknown size, which has no shares.
    #[error("{region}: size is unknown, and so are the shares of its GPUs (use --size)")]
    NoSize {
        /// The region.
        region: RegionName,
    },
    /// A region with unaligned shares.
    #[error(
        "{region}: {} bytes cannot be divided among {} in multiples of {step} ({})",
        size.0, plural(*gpus, "GPU"),
        instead.map_or("the region is too small".into(), |size| format!("use --size {} or less", in_mib(size)))
    )]
    UnevenShare {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Bytes,
        /// The number of its GPUs.
        gpus: usize,
        /// The alignment of a share.
        step: Bytes,
        /// The largest possible share.
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
        /// The alignment.
        step: Bytes,
        /// The nearest valid sizes.
        near: Vec<Bytes>,
    },
    /// More than the size of the region.
    #[error(
        "{region} has {} ({} bytes), but {} bytes are requested{}{}{}",
        size, size.0, asked,
        if *gpus < 2 { String::new() } else { format!(", {each} for each of {gpus} GPUs") },
        if kept.0 == 0 { String::new() } else {
            format!(", including {} bytes that the domain already has", kept.0)
        },
        match stray {
            Some(stray) => format!("; {stray}: correct or remove that device"),
            None => most.map_or(String::new(), |most| format!("; use --size {} or less", in_mib(most))),
        }
    )]
    TooLarge {
        /// The region.
        region: RegionName,
        /// Its size.
        size: Bytes,
        /// The requested memory of all its GPUs, in bytes.
        asked: u128,
        /// The memory of each GPU that keeps no size.
        each: Bytes,
        /// The number of these GPUs.
        gpus: u64,
        /// The part that the domain already has.
        kept: Bytes,
        /// An EGM device of the domain on the region that belongs to none of its GPUs, in words.
        stray: Option<String>,
        /// The largest possible memory of each of the plan's GPUs.
        most: Option<Bytes>,
    },
    /// An alias that libvirt would replace.
    #[error(
        "invalid alias `{}`: must begin with `ua-` and have only letters, digits, `-` and `_`",
        excerpt(alias, SHOWN)
    )]
    BadAlias {
        /// The alias.
        alias: String,
    },
    /// One alias for several GPUs.
    #[error("--alias: {gpus} GPUs selected, expected one (use --alias-prefix)")]
    OneAlias {
        /// The number of GPUs.
        gpus: usize,
    },
    /// The alias of another device.
    #[error("alias `{}` is in use by another device of the domain", printable(alias))]
    AliasTaken {
        /// The alias.
        alias: String,
    },
    /// One cell for two regions.
    #[error(
        "guest NUMA node {cell} cannot have memory of both {} and {second}; use --guest-node {second}=N with another N",
        excerpt(first, SHOWN)
    )]
    CellOfTwo {
        /// The cell.
        cell: u32,
        /// One region.
        first: String,
        /// The other.
        second: RegionName,
    },
    /// A cell beyond QEMU's limit.
    #[error("guest NUMA node {cell}: out of range (QEMU supports 0 to {last})")]
    CellBeyond {
        /// The cell.
        cell: u32,
        /// The last possible cell.
        last: usize,
    },
    /// A cell for a GPU's own memory.
    #[error(
        "guest NUMA node {cell} belongs to a GPU (<acpi nodeset>) and cannot have memory of {region}"
    )]
    CellOfGpu {
        /// The cell.
        cell: u32,
        /// The region.
        region: RegionName,
    },
    /// One cell for several regions, each of which needs its own.
    #[error(
        "--guest-node {cell}: ambiguous with {} selected; use --guest-node {}={cell}",
        regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(" and "),
        regions.first().map_or("egm4", RegionName::as_str)
    )]
    WhichRegion {
        /// The cell.
        cell: u32,
        /// The regions of the plan.
        regions: Vec<RegionName>,
    },
    /// A cell for a region that is not part of the plan.
    #[error("--guest-node {region}={cell}: {region} is not selected")]
    NotChosen {
        /// The region.
        region: RegionName,
        /// The cell.
        cell: u32,
    },
    /// More cells than QEMU supports.
    #[error("the guest would have {cells} NUMA nodes, but QEMU supports at most {limit}")]
    TooManyCells {
        /// The resulting number.
        cells: usize,
        /// The limit.
        limit: usize,
    },
    /// The region is used by another virtual machine or process.
    #[error("{region} is in use by {}", excerpts(holders))]
    InUse {
        /// The region.
        region: RegionName,
        /// Its holders.
        holders: Vec<String>,
    },
    /// A virtual machine with the domain's name uses the region.
    #[error(
        "{region} is in use by {}, assumed to be this domain because the names match",
        excerpts(holders)
    )]
    Own {
        /// The region.
        region: RegionName,
        /// Its holders.
        holders: Vec<String>,
    },
    /// The region is reserved for another virtual machine.
    #[error("{region} is reserved for {}", lease.describe())]
    Reserved {
        /// The region.
        region: RegionName,
        /// The reservation.
        lease: LeaseClaim,
    },
    /// The request selects nothing, and no region is reserved for its virtual machine.
    #[error(
        "no region is reserved for {}; use --gpu, --region or --all, or run `egm-probe reserve` first",
        excerpt(owner, SHOWN)
    )]
    NothingReserved {
        /// The virtual machine.
        owner: String,
    },
    /// A further GPU that may belong to the region, which would make the shares smaller.
    #[error(
        "GPU {peer} ({}) may belong to {region} (same model and NUMA node), whose driver lists only bound GPUs",
        driver.as_deref().map_or_else(|| "no driver".into(), |name| format!("driver {}", excerpt(name, SHOWN)))
    )]
    SuspectedPeer {
        /// The region.
        region: RegionName,
        /// The GPU.
        peer: PciAddress,
        /// The driver that it is bound to.
        driver: Option<String>,
        /// The share of each GPU, if it does.
        share: Option<Bytes>,
    },
    /// A missing GPU.
    #[error("GPU {address}, listed by {region}, does not exist (removed, or not visible)")]
    Gone {
        /// The GPU.
        address: PciAddress,
        /// The region.
        region: RegionName,
    },
    /// The holders of the region are unknown.
    #[error("cannot determine the holders of {region}{}", if *skipped { "" } else { ": not all potential holders are visible" })]
    Unknown {
        /// The region.
        region: RegionName,
        /// Whether holders were not checked at all.
        skipped: bool,
    },
    /// Virtual machines that are off are also defined with the region.
    #[error(
        "{region} is also in the definition of {}; only one of them can run at a time",
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
        "{} of {region} {} not selected; one virtual machine should have every GPU of a region (use --peers)",
        list_gpus(missing),
        if missing.len() == 1 { "is" } else { "are" }
    )]
    Partial {
        /// The region.
        region: RegionName,
        /// Its other GPUs.
        missing: Vec<PciAddress>,
    },
    /// A GPU that is not bound for passthrough.
    #[error(
        "GPU {address} {}; bind it to nvgrace_gpu_vfio_pci",
        driver.unfit()
    )]
    Driver {
        /// The GPU.
        address: PciAddress,
        /// The driver that it is bound to.
        driver: Driver,
    },
}

/// The weight of an objection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Weight {
    /// A warning, or an error with `strict`.
    Advice,
    /// An error, or a warning with `force`.
    Refusal,
    /// Always an error.
    Impossible,
}

impl Objection {
    /// The code of the rule for finished domains that reports the same.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::Partial { .. } => "EGM106",
            Self::InUse { .. } => "EGM108",
            Self::Driver { .. } => "EGM109",
            Self::SuspectedPeer { .. } => "EGM110",
            Self::Defined { .. } => "EGM113",
            Self::Reserved { .. } => "EGM114",
            _ => return None,
        })
    }

    /// The objection with its code, as findings are shown.
    pub(crate) fn with_code(&self) -> String {
        self.code().map_or_else(|| self.to_string(), |code| format!("{self} ({code})"))
    }

    /// A remedy, if it is refused and has one.
    #[must_use]
    pub fn way_out(&self) -> Option<String> {
        Some(match self {
            Self::InUse { .. } | Self::Reserved { .. } => {
                "use --for NAME if the output is for that virtual machine, or --force to override"
                    .into()
            }
            Self::Gone { .. } => "use --force to override".into(),
            Self::SuspectedPeer { share: Some(share), .. } => format!(
                "bind it, use --size {} to leave room for its share, or --force to ignore it",
                in_mib(*share)
            ),
            Self::SuspectedPeer { share: None, .. } => "use --size, or --force to ignore it".into(),
            _ => return None,
        })
    }

    /// Its weight.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self {
            Self::Machine(objection) => objection.weight(),
            Self::Unknown { .. }
            | Self::Own { .. }
            | Self::Defined { .. }
            | Self::Partial { .. }
            | Self::Driver { .. } => Weight::Advice,
            Self::NoGpus { .. }
            | Self::InUse { .. }
            | Self::Reserved { .. }
            | Self::SuspectedPeer { .. }
            | Self::DriverChanging
            | Self::Inferred { .. }
            | Self::Gone { .. } => Weight::Refusal,
            _ => Weight::Impossible,
        }
    }
}

fn list_gpus(gpus: &[PciAddress]) -> String {
    let list: Vec<_> = gpus.iter().map(ToString::to_string).collect();
    format!("GPU {}", list.join(", GPU "))
}

/// A size in the syntax of options.
fn in_mib(size: Bytes) -> String {
    format!("{}MiB", size.0 >> 20)
}
