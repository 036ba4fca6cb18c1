//! `egm-probe stanza`

use std::io::Write;

use super::args::{Global, Part, StanzaArgs, StanzaFormat};
use super::domain_file::{DomainFile, is_stdin};
use super::error::Error;
use super::{Exit, difference, write_warnings};
use crate::check::SCHEMAS;
use crate::files::user_file;
use crate::host::Region;
use crate::output::stanza as output;
use crate::plan::{Alignment, Objection, Plan, Request};
use crate::report::Report;
use crate::stanza::{Options, Parts, Stanza};
use crate::values::text::printable;

pub(super) fn run(
    args: &StanzaArgs,
    global: &Global,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    check_usage(args, global)?;
    let base = args.domain.as_deref().map(DomainFile::read_utf8).transpose()?;
    let report = global.report(Plan::NEEDS)?;
    let domain = base.as_ref().map(DomainFile::domain).transpose()?;
    let plan = match Plan::new(&report, &request(args), domain.as_ref()) {
        Ok(plan) => plan,
        Err(refused) => {
            write_warnings(err, &report, asked_for(args, &report));
            write_objections(err, &refused.warnings);
            return Err(Error::Refused(refused.refusals));
        }
    };
    let warnings = plan.warnings.clone();
    let stanza = write_down(args, global, &report, plan, base.as_ref()).inspect_err(|_| {
        write_warnings(err, &report, asked_for(args, &report));
        write_objections(err, &warnings);
    })?;
    if args.dry_run {
        write_difference(out, base.as_ref(), &stanza)?;
    } else if args.in_place {
        put_back(args, base.as_ref(), &stanza)?;
    } else {
        write_out(args, &report, &stanza, out)?;
    }
    out.flush()?;
    let is_unchanged = base.as_ref().is_some_and(|base| base.source.text() == stanza.xml);
    if is_unchanged && (args.in_place || args.dry_run) {
        let name = base.as_ref().map_or("", |base| &base.name);
        let _ = writeln!(err, "egm-probe: note: {name}: nothing to change");
    }
    if args.format != StanzaFormat::Json {
        let regions = report.host.regions.iter();
        write_warnings(err, &report, regions.filter(|region| stanza.plan.has_region(&region.name)));
        write_objections(err, &stanza.plan.warnings);
        for finding in &stanza.warnings {
            let (message, code) = (printable(&finding.message), finding.rule.code);
            let help = finding.help.as_deref().map(printable);
            let help = help.map_or(String::new(), |help| format!("; help: {help}"));
            let severity = finding.severity.name();
            let _ = writeln!(err, "egm-probe: {severity}: {message} ({code}){help}");
        }
    }
    Ok(Exit::Done)
}

/// The regions whose warnings may tell why there is no plan.
fn asked_for<'a>(args: &StanzaArgs, report: &'a Report) -> Vec<&'a Region> {
    let is_named = |region: &&Region| {
        let mut gpus = region.gpus.iter();
        args.all
            || args.regions.contains(&region.name)
            || gpus.any(|gpu| args.gpus.contains(&gpu.address))
    };
    report.host.regions.iter().filter(is_named).collect()
}

/// What clap cannot tell.
fn check_usage(args: &StanzaArgs, global: &Global) -> Result<(), Error> {
    let is_xml = args.format == StanzaFormat::Xml;
    let has = |part| args.parts.contains(&part);
    let of_domain = args.domain.as_deref().is_some_and(is_stdin);
    let problem = if args.in_place && of_domain {
        "--in-place needs a file to write to, and --domain - is standard input"
    } else if of_domain && global.from.as_deref().is_some_and(is_stdin) {
        "--domain - and --from - cannot both be standard input"
    } else if (args.in_place || args.dry_run) && !is_xml {
        "--in-place and --dry-run write XML: leave --format out"
    } else if args.gpu_cells > 0 && !has(Part::Numa) {
        "--gpu-cells requires --with numa, which writes the cells"
    } else if args.gpu_cells > 0 && !has(Part::Hostdev) && args.domain.is_none() {
        "--gpu-cells requires --with hostdev or --domain, for the <hostdev> that names the cells"
    } else if args.vcpus.is_some() && !has(Part::Numa) && (is_xml || args.domain.is_some()) {
        "--vcpus requires --with numa, which writes the cells that share the CPUs"
    } else if global.no_occupancy && args.gpus.is_empty() && args.regions.is_empty() && !args.all {
        "what is reserved for --for NAME must be looked at; leave --no-occupancy out"
    } else if args.shell && args.format != StanzaFormat::QemuArgs {
        "--shell is for --format qemu-args"
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
    base: Option<&DomainFile>,
) -> Result<Stanza, Error> {
    let has = |part| args.parts.contains(&part);
    let parts =
        Parts { hostdev: has(Part::Hostdev), numa: has(Part::Numa), machine: has(Part::Machine) };
    let indent = args.indent.map(usize::from);
    // QEMU that is started by hand has no libvirt whose schema counts.
    let has_libvirt = global.is_local() && args.format != StanzaFormat::QemuArgs;
    let options = Options {
        parts,
        indent,
        strict: args.strict,
        dialect: args.libvirt,
        schemas: has_libvirt.then(|| SCHEMAS.into()),
    };
    let stanza = match base {
        Some(base) => Stanza::within(report, plan, base.source.text(), &options),
        None => Stanza::new(report, plan, &options),
    };
    stanza
        .map_err(|problem| Error::Unwritable { name: base.map(|base| base.name.clone()), problem })
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

fn write_difference(
    out: &mut dyn Write,
    base: Option<&DomainFile>,
    stanza: &Stanza,
) -> Result<(), Error> {
    let Some(base) = base else { return Ok(()) };
    difference::write(out, &base.name, base.source.text(), &stanza.xml)?;
    Ok(())
}

fn write_objections(err: &mut dyn Write, objections: &[Objection]) {
    for objection in objections {
        let _ = writeln!(err, "egm-probe: warning: {objection}");
    }
}
