//! Free numbers for PCI controllers of a domain.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::domain::{Bus, Maybe, PciMachine};

/// The largest index: addresses of devices have it in one byte.
const LAST_INDEX: u32 = 255;

/// The largest `busNr` (`virDomainControllerDefValidate`, libvirt's `src/conf/domain_validate.c`).
const LAST_BUS_NR: u8 = 254;

/// Bus numbers that are left to the ports of the first bus, which libvirt adds as it needs them.
const OF_FIRST_BUS: u8 = 16;

/// The distances between bus numbers to try, so that buses have room for further ports.
const STEPS: [u8; 6] = [32, 16, 8, 4, 2, 1];

/// The numbers that a domain uses.
#[derive(Default)]
pub(super) struct Numbers {
    indexes: BTreeSet<u32>,
    chassis: BTreeSet<u8>,
    /// The slots of each bus.
    slots: BTreeMap<u32, BTreeSet<u8>>,
    buses: Vec<RangeInclusive<u8>>,
}

impl Numbers {
    pub(super) fn of(machine: Option<&PciMachine>) -> Self {
        // The first bus, and its host bridge.
        let mut numbers = Self { indexes: BTreeSet::from([0]), ..Self::default() };
        numbers.slots.entry(0).or_default().insert(0);
        let Some(machine) = machine else {
            numbers.buses.push(0..=OF_FIRST_BUS - 1);
            return numbers;
        };
        // libvirt adds the missing controllers of addresses.
        let used = machine.devices().iter().filter_map(|device| match device.address.on_bus()? {
            Bus::Index(index) => Some(index),
            _ => None,
        });
        numbers.indexes.extend(used);
        for (bus, slots) in machine.occupied() {
            if let Bus::Index(index) = bus {
                numbers.slots.entry(index).or_default().extend(slots.keys());
            }
        }
        let mut below: BTreeMap<Bus, u8> = BTreeMap::new();
        for controller in machine.controllers() {
            numbers.indexes.extend(controller.index.known());
            numbers.chassis.extend(controller.target.chassis.known());
            if let Some(bus) = controller.bus().filter(|_| !controller.is_root()) {
                // Without a known place, it may be on the first bus.
                let root = machine.root_of(&bus).unwrap_or(Bus::Index(0));
                let count = below.entry(root).or_default();
                *count = count.saturating_add(1);
            }
        }
        let count = |bus: &Bus| below.get(bus).copied().unwrap_or_default();
        let last = count(&Bus::Index(0)).max(OF_FIRST_BUS - 1);
        numbers.buses.push(0..=last);
        for controller in machine.controllers() {
            if let Some(first) = controller.target.bus_nr.known() {
                let ports = controller.bus().map_or(0, |bus| count(&machine.canonical(&bus)));
                numbers.buses.push(first..=first.saturating_add(ports));
            }
        }
        numbers
    }

    /// A free index above another one.
    pub(super) fn index_above(&mut self, other: u32) -> Option<u32> {
        let mut candidates = other.saturating_add(1)..=LAST_INDEX;
        let index = candidates.find(|index| !self.indexes.contains(index))?;
        self.indexes.insert(index);
        Some(index)
    }

    /// A free chassis for a port. libvirt's default is the index, which other ports may have.
    pub(super) fn chassis(&mut self, index: u32) -> Option<u8> {
        let default = u8::try_from(index).ok().filter(|it| !self.chassis.contains(it));
        let is_free = |chassis: &u8| {
            !self.chassis.contains(chassis) && !self.indexes.contains(&u32::from(*chassis))
        };
        let chassis = default.or_else(|| (1..=u8::MAX).find(is_free))?;
        self.chassis.insert(chassis);
        Some(chassis)
    }

    /// A free slot of a bus.
    pub(super) fn slot(&mut self, bus: u32) -> Option<u8> {
        let slots = self.slots.entry(bus).or_default();
        let slot = (0..32).find(|slot| !slots.contains(slot))?;
        slots.insert(slot);
        Some(slot)
    }

    /// A free number for a bus with this many ports, each of which needs one more.
    pub(super) fn bus_nr(&mut self, ports: usize) -> Option<u8> {
        let ports = u8::try_from(ports).ok()?;
        let range = STEPS.into_iter().find_map(|step| {
            let firsts = (step..=LAST_BUS_NR).step_by(usize::from(step));
            let mut ranges = firsts.filter_map(|first| Some(first..=first.checked_add(ports)?));
            ranges.find(|range| {
                let overlaps = |other: &RangeInclusive<u8>| {
                    range.start() <= other.end() && other.start() <= range.end()
                };
                !self.buses.iter().any(overlaps)
            })
        })?;
        let first = *range.start();
        self.buses.push(range);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;
    use crate::domain::{Domain, PciMachine};

    fn of(devices: &str) -> Numbers {
        let xml = format!("<domain><devices>{devices}</devices></domain>");
        Numbers::of(Some(&PciMachine::of(&Domain::parse(&xml).unwrap())))
    }

    #[test]
    fn a_new_domain_has_buses_with_room_between_them() {
        let mut numbers = Numbers::of(None);
        let first: Vec<_> = (0..9).filter_map(|_| numbers.bus_nr(1)).collect();
        assert_eq!(first, [32, 64, 96, 128, 160, 192, 224, 16, 48]);
        let rest = std::iter::from_fn(|| numbers.bus_nr(1)).count();
        assert_eq!(first.len() + rest, 120, "two numbers each, from 16 to 255");
        assert_eq!((numbers.index_above(0), numbers.index_above(1)), (Some(1), Some(2)));
        assert_eq!(
            (numbers.chassis(2), numbers.slot(0), numbers.slot(1)),
            (Some(2), Some(1), Some(0))
        );
    }

    #[test]
    fn numbers_of_a_domain_are_avoided() {
        let mut numbers = of("<controller type='pci' index='1' model='pcie-expander-bus'>
              <target busNr='31'/><address type='pci' bus='0' slot='1'/></controller>
            <controller type='pci' index='2' model='pcie-root-port'>
              <target chassis='4'/><address type='pci' bus='1' slot='0'/></controller>
            <hostdev type='pci'><address type='pci' bus='3' slot='0'/></hostdev>");
        assert_eq!(numbers.index_above(0), Some(4), "3 is a controller that libvirt adds");
        assert_eq!(numbers.chassis(4), Some(5), "4 is taken, and 1 to 3 may be defaults");
        assert_eq!((numbers.slot(0), numbers.slot(1)), (Some(2), Some(1)));
        assert_eq!(numbers.bus_nr(1), Some(64), "32 is that of the port");
    }

    #[test]
    fn a_full_domain_has_no_free_numbers() {
        let mut numbers = Numbers::of(None);
        while numbers.index_above(0).is_some() {}
        while numbers.slot(0).is_some() {}
        assert!((1..=300).filter_map(|index| numbers.chassis(index)).count() == 255);
        assert_eq!(numbers.chassis(7), None);
        assert_eq!(numbers.bus_nr(300), None);
    }
}
