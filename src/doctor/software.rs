//! Checks of the installed QEMU and libvirt.

use super::facts::Facts;
use super::{LibvirtSchema, Outcome, Qemu};
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt};

const NOT_ASKED: &str = "known only for the running host";

pub(super) fn qemu(facts: &Facts<'_>) -> Outcome {
    match &facts.installed.qemu {
        None => Outcome::skip(NOT_ASKED),
        Some(Qemu::Missing) => Outcome::fail("qemu-system-aarch64: not found"),
        Some(Qemu::Silent(problem)) => Outcome::fail(problem.clone()),
        Some(Qemu::Answered { program, knows_egm, version }) => {
            let program = excerpt(&program.to_string_lossy(), 200);
            if !*knows_egm {
                return Outcome::fail(format!("{program}: acpi-egm-memory is not supported"));
            }
            let version = version.as_deref().map(|version| excerpt(version, SHOWN));
            match version {
                Some(version) if lacks_iommufd_change(&version) => Outcome::warn(format!(
                    "{program}: version {version} lacks the change to iommufd that was made after \
                     11.0.0+nvidia1-1: it cannot map EGM (\"Bad address\")"
                )),
                _ => Outcome::passed(program),
            }
        }
    }
}

/// Whether this version of NVIDIA's QEMU cannot map EGM with iommufd: all up to 11.0.0+nvidia1-1.
fn lacks_iommufd_change(version: &str) -> bool {
    let mut words = version.split(['(', ')', ' ', ':']);
    let Some((upstream, build)) = words.find_map(|word| word.split_once("+nvidia")) else {
        return false;
    };
    let numbers =
        |text: &str| -> Vec<u32> { text.split(['.', '-', '~', '+']).map_while(decimal).collect() };
    (numbers(upstream), numbers(build)) <= (vec![11, 0, 0], vec![1, 1])
}

pub(super) fn libvirt(facts: &Facts<'_>) -> Outcome {
    match &facts.installed.schema {
        None => Outcome::skip(NOT_ASKED),
        Some(LibvirtSchema::Missing(directory)) => Outcome::warn(format!(
            "{}: no libvirt schema found; libvirt is not installed",
            excerpt(&directory.to_string_lossy(), 200)
        )),
        Some(LibvirtSchema::Unreadable(problem)) => Outcome::warn(problem.clone()),
        Some(LibvirtSchema::Read { knows_egm: true, .. }) => Outcome::pass(),
        Some(LibvirtSchema::Read { directory, knows_egm: false }) => {
            let directory = excerpt(&directory.to_string_lossy(), 200);
            let message = format!(
                "{directory}: memory model egm is not supported; this libvirt rejects the domain or drops \
                 <pciDev>"
            );
            Outcome::fail(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lacks_iommufd_change;

    #[test]
    fn versions_without_the_change_are_known() {
        for version in ["10.1.0 (Debian 1:10.1.0+nvidia5-1)", "11.0.0 (Debian 1:11.0.0+nvidia1-1)"]
        {
            assert!(lacks_iommufd_change(version), "{version}");
        }
        for version in
            ["11.0.0 (Debian 1:11.0.0+nvidia1-2)", "11.0.0+nvidia2-1", "10.0.2 (v10.0.2)", "x"]
        {
            assert!(!lacks_iommufd_change(version), "{version}");
        }
    }
}
