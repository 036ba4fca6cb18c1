//! `egm-probe stanza`

use std::io::Write;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::args::{Global, one_of, parse_gpu, parse_region};
use super::domain_file::DomainFile;
use super::error::Error;
use super::{Exit, Session, difference, is_dash};
use crate::check::SCHEMAS;
use crate::domain::{Dialect, Document};
use crate::files::user_file;
use crate::host::Region;
use crate::output::stanza as output;
use crate::plan::{Alignment, GuestNode, MachineRequest, Objection, Plan, Request};
use crate::report::Report;
use crate::stanza::{Options, Parts, Stanza};
use crate::values::text::printable;
use crate::values::{Bytes, PciAddress, RegionName, parse_option};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("choice").required(true).multiple(true).args(["gpus", "regions", "all", "owner"]))]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct StanzaArgs {
    /// Use these GPUs, such as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    #[arg(num_args = 1..)]
    gpus: Vec<PciAddress>,
    /// Use all GPUs of these regions, such as egm4 or /dev/egm4
    #[arg(long = "region", value_name = "REGION", value_parser = parse_region)]
    #[arg(value_delimiter = ',', num_args = 1..)]
    regions: Vec<RegionName>,
    /// Use all GPUs of all regions
    #[arg(long)]
    all: bool,
    /// Also use the other GPUs of their regions
    #[arg(long)]
    peers: bool,
    /// Memory per GPU, such as 8GiB; a multiple of 2MiB [default: its share of the region]
    #[arg(long, value_parser = parse_option)]
    size: Option<Bytes>,
    /// Guest NUMA node that a region backs [default: as in the domain, or the first free one]
    #[arg(long = "guest-node", value_name = "[REGION=]N", value_parser = parse_guest_node)]
    #[arg(value_delimiter = ',')]
    guest_nodes: Vec<GuestNode>,
    /// Alias of the GPU, if only one is selected; must begin with ua-
    #[arg(long, value_name = "NAME", conflicts_with = "alias_prefix")]
    alias: Option<String>,
    /// Prefix of the GPU aliases, followed by a number [default: ua-hostdev]
    #[arg(long, value_name = "PREFIX")]
    alias_prefix: Option<String>,
    /// Also write these parts of the domain
    #[arg(long = "with", value_enum, value_name = "LIST", value_delimiter = ',')]
    parts: Vec<Part>,
    /// Distribute N virtual CPUs over the cells [default: keep the domain's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    vcpus: Option<u32>,
    /// Add N empty NUMA cells for each GPU that has none; Grace GPUs need 8
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=64))]
    gpu_cells: u32,
    /// Target libvirt [default: the installed one if it supports EGM, else nvidia-12.4]
    #[arg(long, value_name = "DIALECT", value_parser = one_of(Dialect::ALL, Dialect::name))]
    libvirt: Option<Dialect>,
    /// Output format
    #[arg(long, value_enum, default_value = "xml")]
    format: StanzaFormat,
    /// Quote QEMU's arguments for a shell
    #[arg(long)]
    shell: bool,
    /// Number of spaces per XML level [default: as in the domain, or 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=16))]
    indent: Option<u8>,
    /// Merge into the domain XML in FILE and print the result; - is standard input
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,
    /// Write the result back to the file given with --domain
    #[arg(long, requires = "domain")]
    in_place: bool,
    /// Show the changes without writing them
    #[arg(long, requires = "domain")]
    dry_run: bool,
    /// Name of the virtual machine; its own regions are not conflicts. Without --gpu, --region or
    /// --all, use the regions reserved for it [default: the domain's]
    #[arg(long = "for", value_name = "NAME")]
    owner: Option<String>,
    /// Proceed even if a region is in use or some of its GPUs were not detected
    #[arg(long)]
    force: bool,
    /// Treat warnings as errors
    #[arg(long, conflicts_with = "force")]
    strict: bool,
}

/// A part of a domain, in addition to its EGM devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The <hostdev> of each GPU
    Hostdev,
    /// Memory, memory backing and NUMA cells
    Numa,
    /// UEFI, ACPI and GICv3
    Machine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StanzaFormat {
    /// libvirt's XML
    Xml,
    /// The plan, the XML and QEMU's arguments (egm-probe.stanza/1)
    Json,
    /// QEMU's arguments, one per line
    QemuArgs,
}

pub(super) fn run(args: &StanzaArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let global = session.global;
    check_usage(args, global)?;
    let base = args.domain.as_deref().map(DomainFile::read_utf8).transpose()?;
    let report = global.report(Plan::NEEDS)?;
    let document = base.as_ref().map(DomainFile::document).transpose()?;
    let domain = document.as_ref().map(Document::domain);
    let plan = match Plan::new(&report, &request(args), domain) {
        Ok(plan) => plan,
        Err(refused) => {
            warn(session, &report, asked_for(args, &report), &refused.warnings);
            return Err(Error::Refused(refused.refusals));
        }
    };
    let warnings = plan.warnings.clone();
    let named = base.as_ref().map(|base| base.name.as_str()).zip(document.as_ref());
    let stanza = write_down(args, global, &report, plan, named)
        .inspect_err(|_| warn(session, &report, asked_for(args, &report), &warnings))?;
    let base = base.as_ref();
    if let Some(base) = base.filter(|_| args.dry_run) {
        difference::write(session.out, &base.name, base.source.text(), &stanza.xml)?;
    } else if args.in_place {
        put_back(args, base, &stanza)?;
    } else {
        write_out(args, &report, &stanza, session.out)?;
    }
    session.out.flush()?;
    let changes_file = args.in_place || args.dry_run;
    if let Some(base) = base.filter(|it| changes_file && it.source.text() == stanza.xml) {
        session.note(format_args!("{}: unchanged", base.name));
    }
    if args.format != StanzaFormat::Json {
        let regions = report.host.regions.iter();
        let regions = regions.filter(|region| stanza.plan.has_region(&region.name));
        warn(session, &report, regions, &stanza.plan.warnings);
        for finding in &stanza.warnings {
            let (message, code) = (printable(&finding.message), finding.rule.code);
            let help = finding.help.as_deref().map(printable);
            let help = help.map_or(String::new(), |help| format!("; help: {help}"));
            let severity = finding.severity.name();
            let _ = writeln!(session.err, "egm-probe: {severity}: {message} ({code}){help}");
        }
    }
    Ok(Exit::Done)
}

fn warn<'a>(
    session: &mut Session<'_>,
    report: &Report,
    regions: impl IntoIterator<Item = &'a Region>,
    objections: &[Objection],
) {
    session.warn_of(report, []);
    for region in regions {
        // A wrong device node is an objection.
        for warning in region.all_warnings().filter(|warning| !warning.is_of_node()) {
            session.warn(format_args!("{}: {warning}", region.name));
        }
    }
    for objection in objections {
        session.warn(objection);
    }
}

/// The requested regions, whose warnings may explain a refusal.
fn asked_for<'a>(args: &StanzaArgs, report: &'a Report) -> Vec<&'a Region> {
    let is_named = |region: &&Region| {
        let mut gpus = region.gpus.iter();
        args.all
            || args.regions.contains(&region.name)
            || gpus.any(|gpu| args.gpus.contains(&gpu.address))
    };
    report.host.regions.iter().filter(is_named).collect()
}

/// Checks of the usage that clap cannot do.
fn check_usage(args: &StanzaArgs, global: &Global) -> Result<(), Error> {
    let is_xml = args.format == StanzaFormat::Xml;
    let has = |part| args.parts.contains(&part);
    let of_domain = args.domain.as_deref().is_some_and(is_dash);
    let problem = if args.in_place && of_domain {
        "--in-place requires a file, and --domain - is standard input"
    } else if of_domain && global.from.as_deref().is_some_and(is_dash) {
        "--domain - and --from - cannot both be standard input"
    } else if (args.in_place || args.dry_run) && !is_xml {
        "--in-place and --dry-run support only XML (omit --format)"
    } else if args.gpu_cells > 0 && !has(Part::Numa) {
        "--gpu-cells requires --with numa, which writes the cells"
    } else if args.gpu_cells > 0 && !has(Part::Hostdev) && args.domain.is_none() {
        "--gpu-cells requires --with hostdev or --domain, for the <hostdev> that names the cells"
    } else if args.vcpus.is_some() && !has(Part::Numa) && (is_xml || args.domain.is_some()) {
        "--vcpus requires --with numa, which writes the cells that share the CPUs"
    } else if global.no_occupancy && args.gpus.is_empty() && args.regions.is_empty() && !args.all {
        "--no-occupancy: reservations must be checked if only --for is given"
    } else if args.shell && args.format != StanzaFormat::QemuArgs {
        "--shell requires --format qemu-args"
    } else {
        return Ok(());
    };
    Err(Error::Usage(problem))
}

fn request(args: &StanzaArgs) -> Request {
    Request {
        gpus: args.gpus.clone(),
        regions: args.regions.clone(),
        all: args.all,
        peers: args.peers,
        size: args.size,
        alignment: match args.format {
            StanzaFormat::QemuArgs => Alignment::Qemu,
            StanzaFormat::Xml | StanzaFormat::Json => Alignment::Libvirt,
        },
        guest_nodes: args.guest_nodes.clone(),
        alias: args.alias.clone(),
        alias_prefix: args.alias_prefix.clone(),
        gpu_cells: args.gpu_cells,
        vcpus: args.vcpus,
        machine: MachineRequest::default(),
        owner: args.owner.clone(),
        force: args.force,
        strict: args.strict,
    }
}

fn write_down(
    args: &StanzaArgs,
    global: &Global,
    report: &Report,
    plan: Plan,
    base: Option<(&str, &Document<'_>)>,
) -> Result<Stanza, Error> {
    let has = |part| args.parts.contains(&part);
    let parts =
        Parts { hostdev: has(Part::Hostdev), numa: has(Part::Numa), machine: has(Part::Machine) };
    let indent = args.indent.map(usize::from);
    // A manually started QEMU does not involve libvirt's schema.
    let has_libvirt = global.is_local() && args.format != StanzaFormat::QemuArgs;
    let options = Options {
        parts,
        indent,
        strict: args.strict,
        dialect: args.libvirt,
        schemas: has_libvirt.then(|| SCHEMAS.into()),
    };
    let stanza = match base {
        Some((_, document)) => Stanza::within(report, plan, document, &options),
        None => Stanza::new(report, plan, &options),
    };
    stanza.map_err(|problem| Error::Unwritable {
        name: base.map(|(name, _)| name.to_owned()),
        problem,
    })
}

fn write_out(
    args: &StanzaArgs,
    report: &Report,
    stanza: &Stanza,
    out: &mut dyn Write,
) -> Result<(), Error> {
    match args.format {
        StanzaFormat::Xml => out.write_all(stanza.xml.as_bytes())?,
        StanzaFormat::Json => output::write_json(out, report, stanza)?,
        StanzaFormat::QemuArgs => {
            let arguments = stanza.qemu_arguments()?;
            if args.shell {
                output::write_shell(out, &arguments)?;
            } else {
                output::write_lines(out, &arguments)?;
            }
        }
    }
    Ok(())
}

fn put_back(args: &StanzaArgs, base: Option<&DomainFile>, stanza: &Stanza) -> Result<(), Error> {
    let Some((path, base)) = args.domain.as_deref().zip(base) else { return Ok(()) };
    if let Some(snapshot) = base.snapshot.as_ref().filter(|_| stanza.xml != base.source.text()) {
        user_file::replace(path, snapshot, stanza.xml.as_bytes())?;
    }
    Ok(())
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
