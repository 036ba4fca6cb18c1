//! The elements of a plan without a domain.

use super::{Options, elements, machine_elements};
use crate::domain::Dialect;
use crate::domain::element::Element;
use crate::plan::Plan;

/// The elements of a plan on its own, in libvirt's order.
pub(super) fn of(plan: &Plan, options: &Options, dialect: Dialect) -> Vec<Element> {
    let (parts, is_managed) = (options.parts, !options.unmanaged);
    let mut fragments = Vec::new();
    if parts.numa {
        fragments.push(elements::size("maxMemory", plan.memory));
        fragments.push(elements::size("memory", plan.memory));
        fragments.push(elements::memory_backing());
        fragments.extend(plan.vcpus.map(elements::vcpu));
    }
    if !plan.machine.pins.is_empty() {
        fragments.push(machine_elements::cputune(&plan.machine.pins));
    }
    if parts.machine {
        fragments.push(elements::os());
        fragments.push(elements::features());
    }
    fragments.extend(elements::cpu(plan, parts));
    let mut smmus = Vec::new();
    if let Some(pci) = &plan.machine.pci {
        fragments.push(machine_elements::first_bus(pci.hole));
        let (controllers, of_end) = machine_elements::buses(pci, dialect);
        smmus = of_end;
        fragments.extend(controllers);
    }
    if parts.hostdev {
        let gpus = plan.by_address().into_iter();
        fragments.extend(gpus.map(|it| elements::hostdev(it, plan, parts.numa, is_managed)));
    }
    let devices = plan.machine.devices.iter();
    fragments.extend(devices.map(|device| elements::device(*device, plan, is_managed)));
    if parts.machine {
        fragments.push(machine_elements::no_balloon());
    }
    fragments.extend(plan.placements.iter().map(elements::memory_device));
    fragments.extend(smmus);
    fragments
}
