//! The output of `stanza`: JSON, and QEMU's arguments.

mod machine;

use std::io::{self, Write};

use machine::{BusEntry, CellEntry, PinEntry};
use serde::Serialize;

use super::json;
use crate::check::Finding;
use crate::domain::{PciMachine, Value};
use crate::plan::{Objection, Placement};
use crate::report::Report;
use crate::stanza::Stanza;
use crate::values::shell::quote;
use crate::values::{Bytes, NodeId, PciAddress, RegionName};

/// Writes `egm-probe.stanza/1`: the plan, its XML, and QEMU's arguments.
///
/// # Errors
/// The writer fails.
pub fn write_json<'a>(out: &mut dyn Write, report: &Report, stanza: &'a Stanza) -> io::Result<()> {
    let (plan, domain) = (&stanza.plan, stanza.domain());
    let regions = report.host.regions.iter();
    let of_regions = regions.filter(|region| plan.has_region(&region.name)).flat_map(|region| {
        region.all_warnings().map(move |warning| format!("{}: {warning}", region.name))
    });
    let arguments = stanza.qemu_arguments();
    let no_arguments = arguments.as_ref().err().map(|error| format!("no QEMU arguments: {error}"));
    let arguments = arguments.ok().map(|arguments| {
        let texts = arguments.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
        texts.collect()
    });
    let (allowed, of_domain): (Vec<_>, Vec<_>) =
        stanza.warnings.iter().partition(|finding| finding.allowed);
    let coded = |finding: &Finding| format!("{} ({})", finding.message, finding.rule.code);
    let device = |placement: &'a Placement| DeviceEntry {
        gpu: placement.gpu,
        alias: &placement.alias,
        region: &placement.region,
        path: &placement.path,
        numa_node: placement.host_node,
        guest_node: placement.cell,
        size: placement.size,
        gpu_cells: placement.gpu_cells.as_ref().map(|cells| cells.iter().collect()),
    };
    let machine = PciMachine::of(domain);
    let document = Document {
        schema: "egm-probe.stanza/1",
        devices: plan.placements.iter().map(device).collect(),
        cells: domain.cells.iter().map(machine::cell).collect(),
        memory: number(domain.memory.as_ref()),
        vcpus: number(domain.vcpus.as_ref()),
        buses: machine::buses(plan, &machine),
        pci_hole: number(machine.hole()),
        pins: domain.pins.iter().map(machine::pin).collect(),
        notes: plan.machine.notes.iter().map(ToString::to_string).collect(),
        allowed: plan
            .allowed
            .iter()
            .map(Objection::with_code)
            .chain(allowed.into_iter().map(coded))
            .collect(),
        xml: &stanza.xml,
        qemu_args: arguments,
        warnings: report
            .warnings()
            .map(ToString::to_string)
            .chain(of_regions)
            .chain(plan.warnings.iter().map(Objection::with_code))
            .chain(of_domain.into_iter().map(coded))
            .chain(no_arguments)
            .collect(),
    };
    json::write(out, &document)
}

/// Writes arguments one per line, for `mapfile -t`.
///
/// # Errors
/// The writer fails.
pub fn write_lines(out: &mut dyn Write, arguments: &[(&str, String)]) -> io::Result<()> {
    for (option, value) in arguments {
        writeln!(out, "{option}\n{value}")?;
    }
    Ok(())
}

/// Writes arguments for a shell: one option with its value per line, continued with backslashes.
///
/// # Errors
/// The writer fails.
pub fn write_shell(out: &mut dyn Write, arguments: &[(&str, String)]) -> io::Result<()> {
    for (index, (option, value)) in arguments.iter().enumerate() {
        let end = if index + 1 < arguments.len() { " \\" } else { "" };
        writeln!(out, "{option} {}{end}", quote(value))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    devices: Vec<DeviceEntry<'a>>,
    cells: Vec<CellEntry>,
    memory: Option<Bytes>,
    vcpus: Option<u32>,
    buses: Vec<BusEntry>,
    pci_hole: Option<Bytes>,
    pins: Vec<PinEntry>,
    notes: Vec<String>,
    allowed: Vec<String>,
    xml: &'a str,
    qemu_args: Option<Vec<String>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct DeviceEntry<'a> {
    gpu: PciAddress,
    alias: &'a str,
    region: &'a RegionName,
    path: &'a str,
    numa_node: Option<NodeId>,
    guest_node: u32,
    size: Bytes,
    gpu_cells: Option<Vec<u32>>,
}

fn number<T: Copy>(value: Option<&Value<T>>) -> Option<T> {
    value?.value
}
