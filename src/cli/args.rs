//! The arguments. Their documentation is the help that the program prints.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::setup_args::{DoctorArgs, UdevCommand};
use crate::check::{RULES, Rule, Severity};
use crate::domain::Dialect;
use crate::output::table;
use crate::plan::GuestNode;
use crate::values::{BadAddress, BadRegionName, Bytes, PciAddress, RegionName, parse_option};

/// Find the EGM memory regions of NVIDIA Grace hosts
///
/// Shows which regions of Extended GPU Memory a host can hand to virtual machines, their sizes,
/// and the NUMA nodes and GPUs they belong to, and writes the XML that hands them over. It never
/// opens a region's device.
#[derive(Debug, Parser)]
#[command(name = "egm-probe", version, propagate_version = true, args_override_self = true)]
#[command(after_help = "Exit codes: 0 done; 1 no such region or GPU, refused, or \
    wrong; 2 wrong usage; 3 no EGM on this host; 4 something could not be read or written.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Read the host whose sys, proc, .. lie below DIR
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "from")]
    pub(super) sysroot: Option<PathBuf>,
    /// Read the host that was captured into FILE, a tar or tar.gz; - is standard input
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) from: Option<PathBuf>,
    /// Do not look for who holds the regions
    #[arg(long, global = true)]
    pub(super) no_occupancy: bool,
    /// When to use colours; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    pub(super) color: When,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

// The arguments of one command alone are made, those that were asked for: the rest would be a good part of a start.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Command {
    /// List the EGM regions, one a line
    #[command(visible_alias = "ls", after_help = columns_help())]
    List(ListArgs),
    /// Show everything known about regions or GPUs
    Show(ShowArgs),
    /// Show sockets, regions and GPUs as a tree or a picture
    Topology(TopologyArgs),
    /// Write the XML that gives EGM memory to a virtual machine
    Stanza(StanzaArgs),
    /// Check the XML of virtual machines that have EGM memory
    Validate(ValidateArgs),
    /// Record this host into a file, for --from and for bug reports
    Capture(CaptureArgs),
    /// Print what changes, as it happens
    Watch(WatchArgs),
    /// Print metrics for Prometheus
    Metrics(MetricsArgs),
    /// Keep regions for a virtual machine for a while, as a word among scripts
    Reserve(ReserveArgs),
    /// Give up what is kept
    Release(ReleaseArgs),
    /// Check the whole way from the firmware to QEMU
    Doctor(DoctorArgs),
    /// Let QEMU open the regions: the udev rules
    #[command(subcommand)]
    Udev(UdevCommand),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ListArgs {
    /// Show these columns; +LIST shows them beside the default ones
    #[arg(short, long, value_name = "LIST")]
    pub(super) output: Option<String>,
    /// Show all columns
    #[arg(short = 'O', long, conflicts_with = "output")]
    pub(super) output_all: bool,
    /// Show sizes in bytes
    #[arg(short, long)]
    pub(super) bytes: bool,
    /// Leave out the header
    #[arg(short, long)]
    pub(super) noheadings: bool,
    /// One blank between columns; blanks in values are escaped
    #[arg(short, long, group = "format")]
    pub(super) raw: bool,
    /// NAME="value" pairs, for shells
    #[arg(short = 'P', long, group = "format")]
    pub(super) pairs: bool,
    /// JSON (egm-probe.list/1): every field whatever is chosen, sizes in bytes
    #[arg(short = 'J', long, group = "format")]
    pub(super) json: bool,
    /// List the columns there are, and exit
    #[arg(short = 'H', long)]
    pub(super) list_columns: bool,
}

#[derive(Args, Debug)]
pub(super) struct CaptureArgs {
    /// The file to write, a tar.gz; - is standard output. One that is there is replaced
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Record who holds the regions, too: the processes that do, libvirt's definitions as far as
    /// they concern EGM, and what is reserved
    #[arg(long)]
    pub(super) with_claims: bool,
    /// Show what is in FILE, and write nothing
    #[arg(short, long, conflicts_with = "with_claims")]
    pub(super) list: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Regions, as egm4 or /dev/egm4; without any region or GPU, all regions
    #[arg(value_name = "REGION", value_parser = parse_region)]
    pub(super) regions: Vec<RegionName>,
    /// GPUs, as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu)]
    pub(super) gpus: Vec<PciAddress>,
    /// JSON (egm-probe.show/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TopologyArgs {
    /// Draw with characters that every terminal has
    #[arg(long)]
    pub(super) ascii: bool,
    /// Each NUMA node on a line of its own
    #[arg(long)]
    pub(super) all_nodes: bool,
    /// Draw a picture into FILE; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ascii", "all_nodes", "json"])]
    pub(super) svg: Option<PathBuf>,
    /// JSON (egm-probe.topology/1)
    #[arg(short = 'J', long, conflicts_with_all = ["ascii", "all_nodes"])]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("choice").required(true).multiple(true).args(["gpus", "regions", "all", "owner"]))]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct StanzaArgs {
    /// These GPUs, as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    #[arg(num_args = 1..)]
    pub(super) gpus: Vec<PciAddress>,
    /// All GPUs of these regions, as egm4 or /dev/egm4
    #[arg(long = "region", value_name = "REGION", value_parser = parse_region)]
    #[arg(value_delimiter = ',', num_args = 1..)]
    pub(super) regions: Vec<RegionName>,
    /// All GPUs of all regions
    #[arg(long)]
    pub(super) all: bool,
    /// Take the other GPUs of their regions, too
    #[arg(long)]
    pub(super) peers: bool,
    /// Memory of each GPU, a multiple of 2MiB, as 8GiB or in bytes [default: its share of the region]
    #[arg(long, value_parser = parse_option)]
    pub(super) size: Option<Bytes>,
    /// Guest NUMA node of a region [default: the one it backs already, or the first left]
    #[arg(long = "guest-node", value_name = "[REGION=]N", value_parser = parse_guest_node)]
    #[arg(value_delimiter = ',')]
    pub(super) guest_nodes: Vec<GuestNode>,
    /// Alias of the one GPU; begins with ua-
    #[arg(long, value_name = "NAME", conflicts_with = "alias_prefix")]
    pub(super) alias: Option<String>,
    /// What the aliases of the GPUs begin with, before a number [default: ua-hostdev]
    #[arg(long, value_name = "PREFIX")]
    pub(super) alias_prefix: Option<String>,
    /// Also write these parts of the domain
    #[arg(long = "with", value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(super) parts: Vec<Part>,
    /// Virtual CPUs to share out anew over the cells [default: the domain's, as they are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) vcpus: Option<u32>,
    /// Empty NUMA cells to add for each GPU's own memory where it has none; Grace GPUs want 8
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=64))]
    pub(super) gpu_cells: u32,
    /// The libvirt to write for [default: the installed one if it has EGM, else nvidia-12.4]
    #[arg(long, value_name = "DIALECT", value_parser = dialects())]
    pub(super) libvirt: Option<Dialect>,
    /// What to write
    #[arg(long, value_enum, default_value = "xml")]
    pub(super) format: StanzaFormat,
    /// Quote QEMU's arguments for a shell
    #[arg(long)]
    pub(super) shell: bool,
    /// Blanks a level of XML [default: 2, or as the domain has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=16))]
    pub(super) indent: Option<u8>,
    /// Put it into the domain XML in FILE, beside what it has, and write that; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) domain: Option<PathBuf>,
    /// Write the domain back to its file
    #[arg(long, requires = "domain")]
    pub(super) in_place: bool,
    /// Only show what would change in the domain
    #[arg(long, requires = "domain")]
    pub(super) dry_run: bool,
    /// The virtual machine's name: what it holds is not in its way, and without --gpu, --region or
    /// --all what is reserved for it is meant [default: the domain's]
    #[arg(long = "for", value_name = "NAME")]
    pub(super) owner: Option<String>,
    /// Go on where it is unwise: in use, or not all GPUs seen
    #[arg(long)]
    pub(super) force: bool,
    /// Refuse whatever would only be warned of
    #[arg(long, conflicts_with = "force")]
    pub(super) strict: bool,
}

/// A part of a domain that goes with its EGM devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// The <hostdev> of each GPU
    Hostdev,
    /// Memory, memory backing and NUMA cells
    Numa,
    /// UEFI, ACPI and GICv3
    Machine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StanzaFormat {
    /// libvirt's XML
    Xml,
    /// The plan, the XML and QEMU's arguments (egm-probe.stanza/1)
    Json,
    /// QEMU's arguments, each on a line of its own
    QemuArgs,
}

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ValidateArgs {
    /// Domain XML, or libvirt's status files; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "explain")]
    pub(super) files: Vec<PathBuf>,
    /// Leave the rules of this host out
    #[arg(long)]
    pub(super) no_host: bool,
    /// Use libvirt's schema in DIR [default: /usr/share/libvirt/schemas, on the running host]
    #[arg(long, value_name = "DIR", conflicts_with = "no_schema")]
    pub(super) schema: Option<PathBuf>,
    /// Skip libvirt's schema
    #[arg(long)]
    pub(super) no_schema: bool,
    /// Expect the spelling of this libvirt: nvidia-12.4, nvidia-11.9, upstream [default: that of
    /// the schema if it has EGM, else nvidia-12.4]
    #[arg(long, value_name = "DIALECT")]
    pub(super) libvirt: Option<Dialect>,
    /// Make findings of this rule, such as EGM027, notes; may be repeated
    #[arg(long, value_name = "CODE", value_parser = parse_rule)]
    pub(super) allow: Vec<Rule>,
    /// Show only findings at least this severe
    #[arg(long, value_enum, value_name = "LEAST", default_value = "note")]
    pub(super) severity: Least,
    /// Warnings are wrong, too
    #[arg(long)]
    pub(super) strict: bool,
    /// Print nothing: the exit code tells
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// JSON (egm-probe.validate/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
    /// Explain a rule, such as EGM011, and exit; "all" lists them
    #[arg(long, value_name = "CODE", exclusive = true)]
    pub(super) explain: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Least {
    Note,
    Warning,
    Error,
}

impl Least {
    pub(super) fn severity(self) -> Severity {
        match self {
            Self::Note => Severity::Note,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// Begin with what is there, as if it had just come
    #[arg(long)]
    pub(super) initial: bool,
    /// How often to look at who holds what, which sends no event, as 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    pub(super) interval: Duration,
    /// End when a region is free, in-use or gone
    #[arg(long, num_args = 2, value_names = ["STATE", "REGION"])]
    pub(super) until: Option<Vec<String>>,
    /// Give up after so long, as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) timeout: Option<Duration>,
    /// A line of JSON for each change (egm-probe.watch/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    Free,
    InUse,
    Gone,
}

#[derive(Args, Debug)]
pub(super) struct MetricsArgs {
    /// Write them to FILE, whole or not at all, as node_exporter's textfile collector wants
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("wanted").required(true).multiple(true).args(["regions", "gpus", "all", "any"]))]
pub(super) struct ReserveArgs {
    /// Regions, as egm4 or /dev/egm4
    #[arg(value_name = "REGION", value_parser = parse_region)]
    pub(super) regions: Vec<RegionName>,
    /// The regions of these GPUs
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    pub(super) gpus: Vec<PciAddress>,
    /// All regions
    #[arg(long, conflicts_with = "any")]
    pub(super) all: bool,
    /// Any N regions that are free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with_all = ["regions", "gpus"])]
    pub(super) any: Option<u32>,
    /// With --any: regions with at least so many GPUs
    #[arg(long = "gpus", value_name = "G", requires = "any")]
    pub(super) least_gpus: Option<usize>,
    /// With --any: regions of at least this size
    #[arg(long, requires = "any", value_parser = parse_option)]
    pub(super) size: Option<Bytes>,
    /// The virtual machine's name
    #[arg(long = "for", value_name = "NAME")]
    pub(super) owner: String,
    /// For how long, as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_ttl)]
    pub(super) ttl: Duration,
    /// Also where it is not known who holds a region, or whether it is reserved
    #[arg(long)]
    pub(super) force: bool,
    /// JSON (egm-probe.list/1) of the regions
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("given_up").required(true).multiple(true).args(["regions", "all"]))]
pub(super) struct ReleaseArgs {
    /// Regions, as egm4 or /dev/egm4
    #[arg(value_name = "REGION", value_parser = parse_region)]
    pub(super) regions: Vec<RegionName>,
    /// All regions that are kept for NAME
    #[arg(long, conflicts_with = "regions")]
    pub(super) all: bool,
    /// The virtual machine's name
    #[arg(long = "for", value_name = "NAME")]
    pub(super) owner: String,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

/// The columns, from the table that makes them.
fn columns_help() -> String {
    let mut help = b"Columns:\n".to_vec();
    // Writing to a vector cannot fail.
    let _ = table::write_columns(&mut help, "  ");
    String::from_utf8_lossy(&help).trim_end().to_owned()
}

pub(super) fn parse_region(text: &str) -> Result<RegionName, BadRegionName> {
    let text = text.trim();
    text.strip_prefix("/dev/").unwrap_or(text).parse()
}

fn parse_rule(code: &str) -> Result<Rule, &'static str> {
    let rule = RULES.iter().find(|rule| rule.code.eq_ignore_ascii_case(code));
    rule.copied().ok_or("unknown rule; --explain all lists them")
}

/// Blanks about an address are what is left of copying it.
fn parse_gpu(text: &str) -> Result<PciAddress, BadAddress> {
    text.trim().parse()
}

/// A minute as `1m`: at least a second, at most thirty days.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(30 * 86_400);
    let time = parse_time(text)?;
    if time < Duration::from_secs(1) || time > MOST {
        return Err("expected 1s to 30days".into());
    }
    Ok(time)
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| error.to_string())
}

/// More often than that would be to do nothing else.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_millis(50) {
        return Err("expected at least 50ms".into());
    }
    Ok(time)
}

/// The names of the dialects, for the help and the completions.
fn dialects() -> impl TypedValueParser<Value = Dialect> {
    PossibleValuesParser::new(Dialect::ALL.iter().map(|dialect| dialect.name())).try_map(|name| name.parse())
}

fn parse_guest_node(text: &str) -> Result<GuestNode, String> {
    let (region, cell) = match text.split_once('=') {
        Some((region, cell)) => {
            (Some(parse_region(region).map_err(|error| error.to_string())?), cell)
        }
        None => (None, text),
    };
    let is_number = !cell.is_empty() && cell.bytes().all(|digit| digit.is_ascii_digit());
    let cell = cell.parse().ok().filter(|_| is_number);
    let cell = cell.ok_or("expected the number of a guest NUMA node, as in 0 or egm4=0")?;
    Ok(GuestNode { region, cell })
}
