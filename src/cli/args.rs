//! The command line: commands, global options, and value parsers shared by several commands. The doc
//! comments of arguments are the help texts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ColorChoice, Parser, Subcommand};

use super::capture::CaptureArgs;
use super::completions::{CompletionsArgs, ValuesArgs};
use super::doctor::DoctorArgs;
use super::export::ExportCommand;
use super::list::{ListArgs, columns_help};
use super::metrics::MetricsArgs;
use super::reserve::{ReleaseArgs, ReserveArgs};
use super::show::ShowArgs;
use super::stanza_args::StanzaArgs;
use super::topology::TopologyArgs;
use super::udev::UdevCommand;
use super::validate::ValidateArgs;
use super::watch::WatchArgs;
use crate::claims::leases::is_name;
use crate::host::{NotFound, Region};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::shell::quote;
use crate::values::text::printable;
use crate::values::{BadAddress, BadRegionName, PciAddress, RegionName};

/// Find the EGM memory regions of NVIDIA Grace hosts
///
/// Shows which regions of Extended GPU Memory (EGM) a host can give to virtual machines, with
/// their sizes, NUMA nodes and GPUs, and generates the libvirt XML for them. It never opens a
/// region's device.
#[derive(Debug, Parser)]
#[command(name = "egm-probe", version, propagate_version = true, args_override_self = true)]
#[command(after_help = "Exit codes: 0 success; 1 not found, refused, invalid domain or failed \
    check; 2 usage error; 3 no EGM on this host; 4 read or write error.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Read a host from its root directory DIR (with sys, proc, ..)
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "from")]
    pub(super) sysroot: Option<PathBuf>,
    /// Read a host from the capture FILE (tar or tar.gz); - is standard input
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) from: Option<PathBuf>,
    /// Do not look for holders of the regions
    #[arg(long, global = true)]
    pub(super) no_occupancy: bool,
    /// When to use colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    pub(super) color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the EGM regions, one per line
    #[command(visible_alias = "ls", after_help = columns_help())]
    List(ListArgs),
    /// Show everything known about regions or GPUs
    Show(ShowArgs),
    /// Show sockets, regions and GPUs as a tree or picture
    Topology(TopologyArgs),
    /// Generate XML that gives EGM memory to a virtual machine
    Stanza(Box<StanzaArgs>),
    /// Check the XML of virtual machines that have EGM memory
    Validate(ValidateArgs),
    /// Record this host in a file, for --from and for bug reports
    Capture(CaptureArgs),
    /// Print changes of the regions as they happen
    Watch(WatchArgs),
    /// Print metrics for Prometheus
    Metrics(MetricsArgs),
    /// Write the regions and GPUs for container runtimes and Kubernetes
    #[command(subcommand)]
    Export(ExportCommand),
    /// Reserve regions for a virtual machine for a limited time
    Reserve(ReserveArgs),
    /// Release reserved regions
    Release(ReleaseArgs),
    /// Check this host for EGM, from the firmware to QEMU
    Doctor(DoctorArgs),
    /// Manage the udev rules that let QEMU open the regions
    #[command(subcommand)]
    Udev(UdevCommand),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print values for shell completions
    #[command(hide = true)]
    CompleteValues(ValuesArgs),
}

/// The ways to name a region on the command line.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Region(RegionName),
    /// A GPU of the region.
    Gpu(PciAddress),
    /// Another path of its device node, such as a link made by udev.
    Path(PathBuf),
}

impl Target {
    /// The name of the region, which need not exist if it is given by its name. Needs the same as
    /// [`region`](Self::region).
    pub(super) fn name(&self, report: &Report, root: &Sysroot) -> Result<RegionName, NotFound> {
        match self {
            Self::Region(name) => Ok(name.clone()),
            other => Ok(other.region(report, root)?.name.clone()),
        }
    }

    /// The region, which may be gone. Needs [`Needs::GPUS`] and [`Needs::DEVICE_LINKS`].
    ///
    /// [`Needs::GPUS`]: crate::host::Needs::GPUS
    /// [`Needs::DEVICE_LINKS`]: crate::host::Needs::DEVICE_LINKS
    pub(super) fn region<'a>(
        &self,
        report: &'a Report,
        root: &Sysroot,
    ) -> Result<&'a Region, NotFound> {
        let host = &report.host;
        match self {
            Self::Region(name) => {
                let gone = report.gone.iter().find(|gone| gone.name == *name);
                gone.map_or_else(|| host.find_region(name), Ok)
            }
            Self::Gpu(address) => {
                let found = host.gpu(*address).and_then(|(_, region)| region);
                found.ok_or_else(|| NotFound::gpu_of_region(host, *address))
            }
            Self::Path(path) => {
                let found = report.region_by_other_name(root, path);
                found.ok_or_else(|| NotFound::path(host, path))
            }
        }
    }
}

pub(super) fn parse_target(text: &str) -> Result<Target, BadRegionName> {
    let text = text.trim();
    let name: Result<RegionName, _> = text.strip_prefix("/dev/").unwrap_or(text).parse();
    match (name, parse_gpu(text)) {
        (Ok(name), _) => Ok(Target::Region(name)),
        (_, Ok(address)) => Ok(Target::Gpu(address)),
        _ if Path::new(text).is_absolute() => Ok(Target::Path(text.into())),
        (Err(error), _) => Err(error),
    }
}

/// A region by its name or path, for commands with another option for GPUs.
pub(super) fn parse_no_gpu(text: &str) -> Result<Target, String> {
    match parse_target(text).map_err(|error| error.to_string())? {
        Target::Gpu(address) => Err(format!(
            "expected a region, such as egm4 (--gpu selects GPUs; `egm-probe list {address}` prints \
             the region)"
        )),
        target => Ok(target),
    }
}

/// A region's name, where a region may not exist or is not looked up.
pub(super) fn parse_region(text: &str) -> Result<RegionName, String> {
    match parse_target(text).map_err(|error| error.to_string())? {
        Target::Region(name) => Ok(name),
        Target::Gpu(_) | Target::Path(_) => Err(format!(
            "expected the name of a region, such as egm4 (`egm-probe list {}` prints it)",
            printable(&quote(text.trim()))
        )),
    }
}

/// Whether a text names this code, such as `EGM011`: in upper or lower case, with or without leading
/// zeros and the prefix.
pub(super) fn names_code(text: &str, code: &str) -> bool {
    let split =
        |text: &str| text.find(|letter: char| letter.is_ascii_digit()).unwrap_or(text.len());
    let (given, number) = text.split_at(split(text));
    let (prefix, expected) = code.split_at(split(code));
    (given.is_empty() || given.eq_ignore_ascii_case(prefix))
        && number.trim_start_matches('0') == expected.trim_start_matches('0')
}

/// Accepts surrounding spaces, which copying an address often leaves.
pub(super) fn parse_gpu(text: &str) -> Result<PciAddress, BadAddress> {
    text.trim().parse()
}

/// The name of a virtual machine that a region is for.
pub(super) fn parse_owner(text: &str) -> Result<String, &'static str> {
    if is_name(text) { Ok(text.to_owned()) } else { Err("expected one line of 1 to 200 bytes") }
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error} (expected a time such as 90s, 10m or 1h)"))
}

/// Parses a time of 1 second to a number of days.
pub(super) fn parse_time_up_to(text: &str, days: u64) -> Result<Duration, String> {
    let most = Duration::from_secs(days * 86_400);
    let time = parse_time(text)?;
    if time < Duration::from_secs(1) || time > most {
        return Err(format!("expected 1s to {days}days"));
    }
    Ok(time)
}

/// A parser for the named values of an enum, which help and completions then list.
pub(super) fn one_of<T: Copy + Send + Sync + 'static>(
    values: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(values.iter().map(|value| name(*value)));
    let find = move |text: String| values.iter().copied().find(|value| name(*value) == text);
    names.try_map(move |text| find(text).ok_or("unknown name"))
}
