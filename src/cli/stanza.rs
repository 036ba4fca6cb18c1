//! `egm-probe stanza`

use std::io::{self, Write};
use std::path::Path;

use similar::TextDiff;

use super::args::{Global, StanzaArgs, StanzaFormat};
use super::error::Error;
use super::{Exit, write_warnings};
use crate::domain::{BadDomain, Domain, Source};
use crate::host::RegionName;
use crate::output::stanza as output;
use crate::plan::{Objection, Plan, Request};
use crate::report::Report;
use crate::stanza::{Parts, Stanza};
use crate::text::printable;
use crate::user_file::{self, Snapshot};

/// The definition of no domain is larger.
const DOMAIN_LIMIT: usize = 64 << 20;

/// Blanks a level, where nothing is said.
const INDENT: usize = 2;

pub(super) fn run(
    args: &StanzaArgs,
    global: &Global,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    check_usage(args, global)?;
    let base = args.domain.as_deref().map(Base::read).transpose()?;
    let report = global.report(Plan::NEEDS)?;
    let domain = base.as_ref().map(Base::domain).transpose()?;
    let plan = match Plan::new(&report, &request(args), domain.as_ref()) {
        Ok(plan) => plan,
        Err(refused) => {
            write_warnings(err, &report, []);
            write_objections(err, &refused.warnings);
            return Err(Error::Refused(refused.refusals));
        }
    };
    let stanza = write_down(args, &report, plan, base.as_ref()).inspect_err(|_| {
        write_warnings(err, &report, []);
    })?;
    if args.dry_run {
        write_difference(out, base.as_ref(), &stanza)?;
    } else if args.in_place {
        put_back(args, base.as_ref(), &stanza)?;
    } else {
        write_out(args, &report, &stanza, base.as_ref(), out)?;
    }
    out.flush()?;
    if args.format != StanzaFormat::Json {
        let regions = report.host.regions.iter();
        let is_of_plan =
            |name: &RegionName| stanza.plan.placements.iter().any(|it| it.region == *name);
        write_warnings(err, &report, regions.filter(|region| is_of_plan(&region.name)));
        write_objections(err, &stanza.plan.warnings);
    }
    Ok(Exit::Done)
}

/// What clap cannot tell.
fn check_usage(args: &StanzaArgs, global: &Global) -> Result<(), Error> {
    let is_xml = args.format == StanzaFormat::Xml;
    let of_domain = args.domain.as_deref().is_some_and(is_stdin);
    let problem = if args.in_place && of_domain {
        "--in-place needs a file to write to, and --domain - is standard input"
    } else if of_domain && global.from.as_deref().is_some_and(is_stdin) {
        "--domain - and --from - cannot both be standard input"
    } else if (args.in_place || args.dry_run) && !is_xml {
        "--in-place and --dry-run are for XML, which --format says otherwise"
    } else if args.gpu_cells > 0 && !args.with_hostdev && args.domain.is_none() {
        "--gpu-cells binds cells to a GPU's <hostdev>: --with-hostdev, or a --domain that has it"
    } else if args.shell && args.format != StanzaFormat::QemuArgs {
        "--shell is for --format qemu-args"
    } else {
        return Ok(());
    };
    Err(Error::Usage(problem))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn request(args: &StanzaArgs) -> Request {
    Request {
        gpus: args.gpus.clone(),
        regions: args.regions.clone(),
        all: args.all,
        peers: args.peers,
        size: args.size,
        guest_nodes: args.guest_nodes.clone(),
        alias: args.alias.clone(),
        alias_prefix: args.alias_prefix.clone(),
        gpu_cells: args.gpu_cells,
        vcpus: args.vcpus,
        owner: args.owner.clone(),
        force: args.force,
        strict: args.strict,
    }
}

/// The domain that a stanza is to be put into.
struct Base {
    name: String,
    source: Source,
    snapshot: Option<Snapshot>,
}

impl Base {
    fn read(path: &Path) -> Result<Self, Error> {
        if is_stdin(path) {
            let bytes = user_file::read_all(io::stdin().lock(), DOMAIN_LIMIT);
            let name = "standard input".to_owned();
            let bytes = bytes.map_err(Error::Stdin)?;
            let source = Source::decode(&bytes).map_err(|error| bad_file(&name, error))?;
            return Ok(Self { name, source, snapshot: None });
        }
        let name = printable(&path.to_string_lossy());
        let snapshot = user_file::read(path, DOMAIN_LIMIT)?;
        let source = Source::decode(&snapshot.bytes).map_err(|error| bad_file(&name, error))?;
        Ok(Self { name, source, snapshot: Some(snapshot) })
    }

    fn domain(&self) -> Result<Domain, Error> {
        Domain::parse(self.source.text()).map_err(|error| bad_file(&self.name, error))
    }
}

fn bad_file(name: &str, error: BadDomain) -> Error {
    Error::BadFile { name: name.to_owned(), problem: error }
}

fn write_down(
    args: &StanzaArgs,
    report: &Report,
    plan: Plan,
    base: Option<&Base>,
) -> Result<Stanza, Error> {
    let parts = Parts { hostdev: args.with_hostdev, numa: args.with_numa };
    let indent = args.indent.map(usize::from);
    let stanza = match base {
        Some(base) => Stanza::within(report, plan, parts, base.source.text(), indent),
        None => Stanza::new(report, plan, parts, indent.unwrap_or(INDENT)),
    };
    stanza
        .map_err(|problem| Error::Unwritable { name: base.map(|base| base.name.clone()), problem })
}

fn write_out(
    args: &StanzaArgs,
    report: &Report,
    stanza: &Stanza,
    base: Option<&Base>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    match (args.format, base) {
        (StanzaFormat::Xml, Some(base)) => out.write_all(&base.source.encode(&stanza.xml))?,
        (StanzaFormat::Xml, None) => out.write_all(stanza.xml.as_bytes())?,
        (StanzaFormat::Json, _) => output::write_json(out, report, stanza)?,
        (StanzaFormat::QemuArgs, _) => {
            let arguments = stanza.qemu_arguments()?;
            if args.shell {
                output::write_shell(out, &arguments)?;
            } else if let Some(line) = arguments.iter().find(|(_, value)| value.contains('\n')) {
                return Err(Error::Lines(line.0));
            } else {
                output::write_lines(out, &arguments)?;
            }
        }
    }
    Ok(())
}

fn put_back(args: &StanzaArgs, base: Option<&Base>, stanza: &Stanza) -> Result<(), Error> {
    let Some((path, base)) = args.domain.as_deref().zip(base) else { return Ok(()) };
    if let Some(snapshot) = base.snapshot.as_ref().filter(|_| stanza.xml != base.source.text()) {
        user_file::replace(path, snapshot, &base.source.encode(&stanza.xml))?;
    }
    Ok(())
}

fn write_difference(
    out: &mut dyn Write,
    base: Option<&Base>,
    stanza: &Stanza,
) -> Result<(), Error> {
    let Some(base) = base else { return Ok(()) };
    let difference = TextDiff::from_lines(base.source.text(), &stanza.xml);
    let mut difference = difference.unified_diff();
    difference.header(&base.name, &base.name);
    Ok(write!(out, "{difference}")?)
}

fn write_objections(err: &mut dyn Write, objections: &[Objection]) {
    for objection in objections {
        let _ = writeln!(err, "egm-probe: warning: {objection}");
    }
}
