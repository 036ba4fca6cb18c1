//! The arguments of `egm-probe stanza`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::args::{Global, Target, one_of, parse_gpu, parse_no_gpu, parse_owner, parse_region};
use super::error::Error;
use super::is_dash;
use super::validate::parse_rule;
use crate::check::{self, Rule};
use crate::domain::Dialect;
use crate::host::{Gpu, Needs};
use crate::plan::{
    Alignment, DeviceRequest, DistanceChoice, GuestNode, MachineRequest, Plan, Request, Size,
    orphans::GPU_CELLS,
};
use crate::values::numbers::decimal;
use crate::values::{Bytes, PciAddress, RegionName, parse_option};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("choice").required(true).multiple(true).args(["gpus", "regions", "all", "owner", "domain"]))]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct StanzaArgs {
    /// Use these GPUs, such as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    #[arg(num_args = 1..)]
    pub(super) gpus: Vec<PciAddress>,
    /// Use all GPUs of these regions, such as egm4 or /dev/egm4
    #[arg(long = "region", value_name = "REGION", value_parser = parse_no_gpu)]
    #[arg(value_delimiter = ',', num_args = 1..)]
    pub(super) regions: Vec<Target>,
    /// Use all GPUs of all regions
    #[arg(long)]
    pub(super) all: bool,
    /// Also use the other GPUs of their regions
    #[arg(long)]
    pub(super) peers: bool,
    /// Memory per GPU, such as 8GiB, a multiple of 2MiB; or share, its share of the region [default:
    /// as in the domain, else share]
    #[arg(long, value_parser = parse_size)]
    pub(super) size: Option<Size>,
    /// Guest NUMA node that a region backs [default: as in the domain, or the first free one]
    #[arg(long = "guest-node", value_name = "[REGION=]N", value_parser = parse_guest_node)]
    #[arg(value_delimiter = ',')]
    pub(super) guest_nodes: Vec<GuestNode>,
    /// Alias of the GPU, if only one is selected; must begin with ua-
    #[arg(long, value_name = "NAME", conflicts_with = "alias_prefix")]
    pub(super) alias: Option<String>,
    /// Prefix of the GPU aliases, followed by a number [default: ua-hostdev]
    #[arg(long, value_name = "PREFIX")]
    pub(super) alias_prefix: Option<String>,
    /// Also write these parts of the domain
    #[arg(long = "with", value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(super) parts: Vec<Part>,
    /// Write a whole Grace guest: --with all --gpu-cells 8; without --domain, a new domain
    #[arg(long)]
    pub(super) complete: bool,
    /// Name of the new domain, for --complete without --domain
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    #[arg(requires = "complete", requires = "vcpus", conflicts_with = "domain")]
    pub(super) name: Option<String>,
    /// Distribute N virtual CPUs over the cells [default: keep the domain's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(super) vcpus: Option<u32>,
    /// Add N empty NUMA cells for each GPU that has none; Grace GPUs need 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=64))]
    pub(super) gpu_cells: Option<u32>,
    /// Also assign these PCI functions, such as NICs, near to the guest NUMA node N [default: that
    /// of their host node]
    #[arg(long = "device", value_name = "ADDRESS[=N]", value_parser = parse_device)]
    #[arg(value_delimiter = ',')]
    pub(super) devices: Vec<DeviceArg>,
    /// Source of distances [default: host if all are known, else grace]
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub(super) distances: Option<Source>,
    /// SMMUs of the guest
    #[arg(long, value_enum, value_name = "KIND", default_value = "own")]
    pub(super) smmu: SmmuKind,
    /// Whether libvirt binds the devices to the driver for passthrough
    #[arg(long, value_enum, value_name = "WHETHER", default_value = "yes")]
    pub(super) managed: YesNo,
    /// Replace existing parts of the domain that differ: guest addresses, huge pages, CPU mode and
    /// topology, SMMU attributes, distances and pinning
    #[arg(long)]
    pub(super) replace: bool,
    /// Take the EGM memory of these GPUs or regions out of the domain, and what --with names of
    /// theirs if no other device uses it
    #[arg(long, requires = "domain", conflicts_with_all = ["size", "guest_nodes", "alias", "alias_prefix", "peers"])]
    #[arg(conflicts_with_all = ["vcpus", "gpu_cells", "distances", "replace", "owner"])]
    pub(super) remove: bool,
    /// With --remove: memory of the domain if no EGM memory is left
    #[arg(long, value_name = "SIZE", value_parser = parse_memory, requires = "remove")]
    pub(super) memory: Option<Bytes>,
    /// Move the domain's EGM memory and GPUs to this region, from the one given with --region
    /// [default: the domain's only one]
    #[arg(long, value_name = "REGION", value_parser = parse_no_gpu, requires = "domain")]
    #[arg(conflicts_with_all = ["remove", "gpus", "all", "peers", "guest_nodes", "alias", "alias_prefix"])]
    pub(super) move_to: Option<Target>,
    /// Target libvirt [default: the installed one if it supports EGM, else nvidia-12.4]
    #[arg(long, value_name = "DIALECT", value_parser = one_of(Dialect::ALL, Dialect::name))]
    pub(super) libvirt: Option<Dialect>,
    /// Output format
    #[arg(long, value_enum, default_value = "xml")]
    pub(super) format: StanzaFormat,
    /// Quote QEMU's arguments for a shell
    #[arg(long)]
    pub(super) shell: bool,
    /// Number of spaces per XML level [default: as in the domain, or 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=16))]
    pub(super) indent: Option<u8>,
    /// Merge into the domain XML in FILE and print the result; - is standard input. Without --gpu,
    /// --region or --all, use the GPUs that the domain has
    #[arg(long, value_name = "FILE")]
    pub(super) domain: Option<PathBuf>,
    /// Write the result back to the file given with --domain
    #[arg(long, requires = "domain")]
    pub(super) in_place: bool,
    /// Show the changes without writing them
    #[arg(long, requires = "domain")]
    pub(super) dry_run: bool,
    /// Name of the virtual machine; its own regions are not conflicts. Without --gpu, --region or
    /// --all, use the regions reserved for it [default: the domain's]
    #[arg(long = "for", value_name = "NAME", value_parser = parse_owner)]
    pub(super) owner: Option<String>,
    /// Confirm the NAME of --for if the domain has another name
    #[arg(long, value_name = "NAME", requires = "owner")]
    pub(super) for_other: Option<String>,
    /// Proceed even if a region is in use or some of its GPUs were not detected
    #[arg(long)]
    pub(super) force: bool,
    /// Downgrade warnings of this rule, such as EGM106, to notes
    #[arg(long, value_name = "CODE", value_parser = parse_rule)]
    pub(super) allow: Vec<Rule>,
    /// Treat warnings as errors
    #[arg(long, conflicts_with = "force")]
    pub(super) strict: bool,
}

/// A part of a domain, in addition to its EGM devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// The <hostdev> of each GPU
    Hostdev,
    /// Memory, memory backing and NUMA cells
    Numa,
    /// UEFI, ACPI, GICv3, the host's CPU, topology, and no balloon
    Machine,
    /// An expander bus, a root port and an SMMUv3 for each GPU, and the 64-bit PCI hole
    Pci,
    /// The distances between the NUMA cells
    Distances,
    /// Pinning of virtual CPUs to the CPUs of their regions' nodes
    Pinning,
    /// All of these
    All,
}

/// A PCI function, and the guest's cell that it is near to.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceArg {
    pub(super) address: PciAddress,
    pub(super) cell: Option<u32>,
}

/// A source of distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// Distances of the host, at least 11 between different nodes
    Host,
    /// Fixed distances: 11 within a GPU, 40 between sockets and between GPUs, 80 and 120 from CPUs to GPUs
    Grace,
}

/// The SMMUs of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SmmuKind {
    /// One for each device
    Own,
    /// One for the devices behind the same SMMU of the host
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum YesNo {
    /// libvirt binds them before the start, and back at the end
    Yes,
    /// They must be bound beforehand
    No,
}

impl StanzaArgs {
    /// Whether a part is written.
    pub(super) fn has(&self, part: Part) -> bool {
        self.complete || self.parts.contains(&Part::All) || self.parts.contains(&part)
    }

    /// Whether the arguments name GPUs or regions.
    fn has_choice(&self) -> bool {
        self.all || !self.gpus.is_empty() || !self.regions.is_empty()
    }

    /// Whether the request is for the GPUs that the domain has: no others are given.
    pub(super) fn uses_own_gpus(&self) -> bool {
        !self.has_choice() && self.owner.is_none() && self.move_to.is_none() && !self.remove
    }

    /// The number of cells to add for each GPU.
    pub(super) fn cells_of_each_gpu(&self) -> u32 {
        self.gpu_cells.unwrap_or(if self.complete { GPU_CELLS } else { 0 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StanzaFormat {
    /// libvirt's XML
    Xml,
    /// The plan, the XML and QEMU's arguments (egm-probe.stanza/1)
    Json,
    /// QEMU's arguments, one per line
    QemuArgs,
}

/// Checks of the usage that clap cannot do.
pub(super) fn check_usage(args: &StanzaArgs, global: &Global) -> Result<(), Error> {
    let is_xml = args.format == StanzaFormat::Xml;
    let of_domain = args.domain.as_deref().is_some_and(is_dash);
    if args.in_place && of_domain {
        return Err(Error::Usage("--in-place requires a file, and --domain - is standard input"));
    }
    if of_domain && global.from.as_deref().is_some_and(is_dash) {
        return Err(Error::Usage("--domain - and --from - cannot both be standard input"));
    }
    if args.remove {
        let problem = if !is_xml {
            "--remove supports only XML (omit --format)"
        } else if args.complete {
            "--remove cannot be combined with --complete; use --with all to take out what it adds"
        } else if args.regions.len() + args.gpus.len() + args.devices.len() == 0 && !args.all {
            "--remove requires --gpu, --region, --device or --all"
        } else {
            return Ok(());
        };
        return Err(Error::Usage(problem));
    }
    let has = |part| args.has(part);
    let cells = args.cells_of_each_gpu();
    let problem = if (args.in_place || args.dry_run) && !is_xml {
        "--in-place and --dry-run support only XML (omit --format)"
    } else if cells > 0 && !has(Part::Numa) {
        "--gpu-cells requires --with numa, which writes the cells"
    } else if cells > 0 && !has(Part::Hostdev) && args.domain.is_none() {
        "--gpu-cells requires --with hostdev or --domain, for the <hostdev> that names the cells"
    } else if args.complete && args.domain.is_none() && args.name.is_none() {
        "--complete requires --domain, or --name and --vcpus for a new domain"
    } else if args.distances.is_some() && !has(Part::Distances) {
        "--distances requires --with distances"
    } else if has(Part::Distances) && !has(Part::Numa) {
        "--with distances requires --with numa, which writes the cells"
    } else if has(Part::Pinning) && !has(Part::Numa) && args.domain.is_none() {
        "--with pinning requires --with numa or --domain, for the cells of the CPUs"
    } else if args.smmu == SmmuKind::Shared && !has(Part::Pci) {
        "--smmu requires --with pci"
    } else if !args.devices.is_empty() && !has(Part::Pci) {
        "--device requires --with pci, which writes the bus of the device"
    } else if args.managed == YesNo::No && !has(Part::Hostdev) {
        "--managed requires --with hostdev"
    } else if args.vcpus.is_some() && !has(Part::Numa) && (is_xml || args.domain.is_some()) {
        "--vcpus requires --with numa, which writes the cells that share the CPUs"
    } else if global.no_occupancy && args.owner.is_some() && !args.has_choice() {
        "--no-occupancy: reservations must be checked if only --for is given"
    } else if args.move_to.is_some() && args.regions.len() > 1 {
        "--move-to moves one region; name only that with --region"
    } else if args.for_other.is_some() && args.for_other != args.owner {
        "--for-other must repeat the name of --for"
    } else if args.shell && args.format != StanzaFormat::QemuArgs {
        "--shell requires --format qemu-args"
    } else {
        return Ok(());
    };
    Err(Error::Usage(problem))
}

pub(super) fn request(
    args: &StanzaArgs,
    regions: Vec<RegionName>,
    function: impl Fn(PciAddress) -> Option<Gpu>,
) -> Request {
    Request {
        gpus: args.gpus.clone(),
        regions,
        all: args.all,
        peers: args.peers,
        size: args.size.unwrap_or_default(),
        alignment: match args.format {
            StanzaFormat::QemuArgs => Alignment::Qemu,
            StanzaFormat::Xml | StanzaFormat::Json => Alignment::Libvirt,
        },
        guest_nodes: args.guest_nodes.clone(),
        alias: args.alias.clone(),
        alias_prefix: args.alias_prefix.clone(),
        gpu_cells: args.cells_of_each_gpu(),
        vcpus: args.vcpus,
        machine: machine(args, function),
        owner: args.owner.clone(),
        force: args.force,
        strict: args.strict,
        allow: args.allow.iter().map(|rule| rule.code).collect(),
    }
}

fn machine(args: &StanzaArgs, function: impl Fn(PciAddress) -> Option<Gpu>) -> MachineRequest {
    let distances = match args.distances {
        None => DistanceChoice::Known,
        Some(Source::Host) => DistanceChoice::Host,
        Some(Source::Grace) => DistanceChoice::Grace,
    };
    let device = |DeviceArg { address, cell }: &DeviceArg| DeviceRequest {
        address: *address,
        cell: *cell,
        function: function(*address),
    };
    MachineRequest {
        pci: args.has(Part::Pci),
        shared_smmu: args.smmu == SmmuKind::Shared,
        devices: args.devices.iter().map(device).collect(),
        distances: Some(distances).filter(|_| args.has(Part::Distances)),
        pinning: args.has(Part::Pinning),
        replace: args.replace,
    }
}

/// The parts of the host that the request needs.
pub(super) fn needs(args: &StanzaArgs) -> Needs {
    let parts = [Part::Pci, Part::Distances, Part::Pinning];
    let has_machine = parts.into_iter().any(|part| args.has(part)) || args.move_to.is_some();
    let needs = if has_machine { Plan::MACHINE_NEEDS } else { Plan::NEEDS };
    // Within a domain, the result is checked like any other.
    let is_whole = args.domain.is_some() || args.name.is_some();
    let needs = if is_whole { needs | check::NEEDS } else { needs };
    let mut targets = args.regions.iter().chain(&args.move_to);
    let has_path = targets.any(|target| matches!(target, Target::Path(_)));
    if has_path { needs | Needs::DEVICE_LINKS } else { needs }
}

fn parse_size(text: &str) -> Result<Size, String> {
    if text.trim() == "share" {
        return Ok(Size::Share);
    }
    parse_option(text).map(Size::Each).map_err(|error| format!("{error}, or `share`"))
}

fn parse_guest_node(text: &str) -> Result<GuestNode, String> {
    let (region, cell) = match text.split_once('=') {
        Some((region, cell)) => (Some(parse_region(region)?), cell),
        None => (None, text),
    };
    let cell =
        decimal(cell).ok_or("expected the number of a guest NUMA node, as in 0 or egm4=0")?;
    Ok(GuestNode { region, cell })
}

/// A size other than 0.
fn parse_memory(text: &str) -> Result<Bytes, String> {
    match parse_option(text) {
        Ok(Bytes(0)) => Err("a domain needs memory".into()),
        size => size.map_err(|error| error.to_string()),
    }
}

fn parse_device(text: &str) -> Result<DeviceArg, String> {
    let (address, cell) = match text.split_once('=') {
        Some((address, cell)) => {
            let cell = decimal(cell).ok_or("expected the number of a guest NUMA node after =")?;
            (address, Some(cell))
        }
        None => (text, None),
    };
    let address = parse_gpu(address).map_err(|error| error.to_string())?;
    Ok(DeviceArg { address, cell })
}

/// The name of a new domain: libvirt refuses slashes and empty names (`virDomainDefParseXML`).
fn parse_name(text: &str) -> Result<String, &'static str> {
    let is_good = !text.trim().is_empty() && text.trim() == text;
    if is_good && !text.contains('/') && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("expected a name without slashes, control characters, and spaces at its ends")
}
