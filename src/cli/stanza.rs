//! `egm-probe stanza`

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;

use super::args::Global;
use super::domain_file::DomainFile;
use super::error::Error;
use super::stanza_args::{Part, StanzaArgs, StanzaFormat, YesNo, check_usage, needs, request};
use super::{Exit, Session, difference};
use crate::check::{Finding, SCHEMAS};
use crate::domain::{Document, Domain, Hostdev};
use crate::host::{Gpu, NotFound, Region};
use crate::output::stanza as output;
use crate::plan::{Objection, Plan, Request};
use crate::report::Report;
use crate::stanza::{
    Moved, Options, Parts, Rearranged, Removal, Rest, Stanza, Unmovable, Unwritable,
};
use crate::values::shell::quote;
use crate::values::text::printable;
use crate::values::{IdList, PciAddress, RegionName};

pub(super) fn run(args: &StanzaArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let global = session.global;
    check_usage(args, global)?;
    let root = global.root()?;
    let report = Report::read(&root, global.wanted(needs(args)));
    // After the host, because no other run can edit the file from here on.
    let base = match (&args.domain, &args.name) {
        (Some(path), _) => Some(DomainFile::read_utf8(path, args.in_place && !args.dry_run)?),
        (None, Some(name)) => Some(DomainFile::new_domain(name)?),
        (None, None) => None,
    };
    let moved;
    let regions = args.regions.iter().map(|target| target.name(&report, &root));
    let regions = regions.collect::<Result<_, _>>()?;
    let mut request = request(args, regions, |address| Gpu::function(&root, address));
    let mut document = base.as_ref().map(DomainFile::document).transpose()?;
    let domain = document.as_ref().map(Document::domain);
    check_owner(args, domain)?;
    if let Some(domain) = domain.filter(|_| args.uses_own_gpus()) {
        request.gpus = gpus_of(domain, &report);
        if request.gpus.is_empty() {
            return Err(Error::NoGpus(base.map_or(String::new(), |base| base.name)));
        }
    }
    if let (true, Some(base), Some(document)) = (args.remove, &base, &document) {
        return remove(args, session, &report, request.regions, base, document);
    }
    if let (Some(to), Some(base), Some(whole)) = (&args.move_to, &base, &document) {
        let result = Moved::to(&report, whole, request.regions.first(), &to.name(&report, &root)?);
        moved = result.map_err(|problem| match problem {
            Unmovable::NotFound(error) => Error::NotFound(error),
            problem => Error::Unwritable { name: Some(base.name.clone()), problem: problem.into() },
        })?;
        (request.gpus, request.regions) = (moved.gpus.clone(), Vec::new());
        document = Some(
            Document::parse(&moved.xml)
                .map_err(Unwritable::from)
                .map_err(|problem| Error::Unwritable { name: Some(base.name.clone()), problem })?,
        );
    }
    let make_plan = |session: &mut Session<'_>, document: Option<&Document<'_>>| {
        Plan::new(&report, &request, document.map(Document::domain)).map_err(|refused| {
            warn(session, &report, asked_for(&request, &report), &refused.warnings);
            Error::Refused(refused.refusals)
        })
    };
    let mut plan = make_plan(session, document.as_ref())?;
    let unwritable = |problem| {
        let name = base.as_ref().map(|base| base.name.clone());
        Error::Unwritable { name, problem }
    };
    let rearranged = match &document {
        Some(document) if args.has(Part::Numa) && args.guest_nodes.is_empty() => {
            Rearranged::for_plan(document, &plan).map_err(unwritable)?
        }
        _ => None,
    };
    if let Some(Rearranged { xml, renumbered, .. }) = &rearranged {
        let of_domain = Document::parse(xml).map_err(Unwritable::from).map_err(unwritable)?;
        plan = make_plan(session, Some(&of_domain))?;
        document = Some(of_domain);
        note_numbers(session, renumbered);
    }
    let warnings = plan.warnings.clone();
    let named = base.as_ref().map(|base| base.name.as_str()).zip(document.as_ref());
    let stanza = write_down(args, global, &report, plan, named)
        .inspect_err(|_| warn(session, &report, asked_for(&request, &report), &warnings))?;
    let base = base.as_ref();
    if let Some(base) = base.filter(|_| args.dry_run) {
        difference::write(session.out, &base.name, base.source.text(), &stanza.xml)?;
    } else if args.in_place {
        put_back(base, &stanza.xml, session)?;
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
        let has_devices = args.format == StanzaFormat::QemuArgs && args.has(Part::Hostdev);
        if has_devices && stanza.plan.machine.pci.is_none() {
            session.warn(
                "the GPUs of a Grace guest also need iommufd, an expander bus and an SMMUv3 each; use --complete",
            );
        }
        for note in &stanza.plan.machine.notes {
            session.note(note);
        }
        for allowed in &stanza.plan.allowed {
            session.note(allowed.with_code());
        }
        show(session, &stanza.warnings);
    }
    Ok(Exit::Done)
}

/// Rejects a domain with another name than the virtual machine.
fn check_owner(args: &StanzaArgs, domain: Option<&Domain>) -> Result<(), Error> {
    match args.owner.as_ref().zip(domain) {
        Some((owner, Domain { name, .. }))
            if args.for_other.is_none() && owner != name && !name.is_empty() =>
        {
            Err(Error::OtherDomain { owner: owner.clone(), domain: name.clone() })
        }
        _ => Ok(()),
    }
}

/// The GPUs of regions that a domain has.
fn gpus_of(domain: &Domain, report: &Report) -> Vec<PciAddress> {
    let addresses = domain.hostdevs.iter().filter_map(Hostdev::pci);
    let has_region = |address: &PciAddress| {
        report.host.gpu(*address).is_some_and(|(_, region)| region.is_some())
    };
    addresses.filter(has_region).collect()
}

/// Reports the new numbers of cells.
fn note_numbers(session: &mut Session<'_>, renumbered: &BTreeMap<u32, u32>) {
    let mut rows: Vec<(RangeInclusive<u32>, RangeInclusive<u32>)> = Vec::new();
    for (&old, &new) in renumbered {
        match rows.last_mut() {
            Some((olds, news)) if [olds.end() + 1, news.end() + 1] == [old, new] => {
                (*olds, *news) = (*olds.start()..=old, *news.start()..=new);
            }
            _ => rows.push((old..=old, new..=new)),
        }
    }
    let list = |row| -> IdList { std::iter::once(row).collect() };
    let rows = rows.into_iter().map(|(old, new)| format!("{} become {}", list(old), list(new)));
    session.note(format_args!("guest NUMA nodes {}", rows.collect::<Vec<_>>().join(", ")));
}

/// Takes devices out of the domain.
fn remove(
    args: &StanzaArgs,
    session: &mut Session<'_>,
    report: &Report,
    regions: Vec<RegionName>,
    base: &DomainFile,
    document: &Document<'_>,
) -> Result<Exit, Error> {
    let mut removal = Removal::default();
    (removal.all, removal.memory) = (args.all, args.memory);
    (removal.gpus, removal.regions) = (args.gpus.clone(), regions);
    removal.devices = args.devices.iter().map(|device| device.address).collect();
    removal.hostdev = args.has(Part::Hostdev);
    removal.pci = args.has(Part::Pci);
    removal.pinning = args.has(Part::Pinning);
    let options = options(args, session.global);
    let rest = Rest::of(report, document, &removal, &options)
        .map_err(|problem| Error::Unwritable { name: Some(base.name.clone()), problem })?;
    if rest.removed == 0 {
        // A device of neither the domain nor the host may be mistyped.
        for region in &removal.regions {
            report.host.find_region(region)?;
        }
        let mut gpus = removal.gpus.iter().filter(|gpu| report.host.gpu(**gpu).is_none());
        if let Some(gpu) = gpus.next() {
            return Err(NotFound::gpu_of_region(&report.host, *gpu).into());
        }
    }
    if args.dry_run {
        difference::write(session.out, &base.name, base.source.text(), &rest.xml)?;
    } else if args.in_place {
        put_back(Some(base), &rest.xml, session)?;
    } else {
        session.out.write_all(rest.xml.as_bytes())?;
    }
    session.out.flush()?;
    if rest.removed == 0 {
        session.note(format_args!("{}: unchanged; it has none of these devices", base.name));
    }
    if !rest.unpinned.is_empty() {
        session.note(format_args!("virtual CPUs {} are no longer pinned", rest.unpinned));
    }
    show(session, &rest.warnings);
    Ok(Exit::Done)
}

/// Reports findings about the result.
fn show(session: &mut Session<'_>, findings: &[Finding]) {
    for finding in findings {
        let (message, code) = (printable(&finding.message), finding.rule.code);
        let help = finding.help.as_deref().map(printable);
        let help = help.map_or(String::new(), |help| format!("; help: {help}"));
        let severity = finding.severity.name();
        let _ = writeln!(session.err, "egm-probe: {severity}: {message} ({code}){help}");
    }
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
        session.warn(objection.with_code());
    }
}

/// The requested regions, whose warnings may explain a refusal.
fn asked_for<'a>(request: &Request, report: &'a Report) -> Vec<&'a Region> {
    let is_named = |region: &&Region| {
        let mut gpus = region.gpus.iter();
        request.all
            || request.regions.contains(&region.name)
            || gpus.any(|gpu| request.gpus.contains(&gpu.address))
    };
    report.host.regions.iter().filter(is_named).collect()
}

fn write_down(
    args: &StanzaArgs,
    global: &Global,
    report: &Report,
    plan: Plan,
    base: Option<(&str, &Document<'_>)>,
) -> Result<Stanza, Error> {
    let options = options(args, global);
    let stanza = match base {
        Some((_, document)) => Stanza::within(report, plan, document, &options),
        None => Stanza::new(report, plan, &options),
    };
    stanza.map_err(|problem| Error::Unwritable {
        name: base.map(|(name, _)| name.to_owned()),
        problem,
    })
}

fn options(args: &StanzaArgs, global: &Global) -> Options {
    let parts = Parts {
        hostdev: args.has(Part::Hostdev),
        numa: args.has(Part::Numa),
        machine: args.has(Part::Machine),
    };
    let indent = args.indent.map(usize::from);
    // A manually started QEMU does not involve libvirt's schema.
    let has_libvirt = global.is_local() && args.format != StanzaFormat::QemuArgs;
    Options {
        parts,
        indent,
        strict: args.strict,
        allow: args.allow.clone(),
        unmanaged: args.managed == YesNo::No,
        dialect: args.libvirt,
        schemas: has_libvirt.then(|| SCHEMAS.into()),
    }
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

fn put_back(base: Option<&DomainFile>, xml: &str, session: &mut Session<'_>) -> Result<(), Error> {
    let Some(base) = base.filter(|base| xml != base.source.text()) else { return Ok(()) };
    let Some(edit) = &base.edit else { return Ok(()) };
    edit.replace(xml.as_bytes())?;
    if is_libvirts(&edit.real) {
        let path = printable(&quote(&edit.real.to_string_lossy()));
        session.warn(format_args!(
            "libvirt reads {path} only when it starts; run `virsh define {path}`"
        ));
    }
    Ok(())
}

/// Whether a file is in the directory of a libvirt's definitions: the system's or a user's, below
/// any root.
fn is_libvirts(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    ["etc/libvirt/qemu", ".config/libvirt/qemu"].iter().any(|end| directory.ends_with(end))
}
