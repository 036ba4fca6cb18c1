//! Checks of the installed QEMU and libvirt.

use super::facts::Facts;
use super::{LibvirtSchema, Outcome, Qemu};
use crate::values::text::excerpt;

const NOT_ASKED: &str = "known only for the running host";

pub(super) fn qemu(facts: &Facts<'_>) -> Outcome {
    match &facts.installed.qemu {
        None => Outcome::skip(NOT_ASKED),
        Some(Qemu::Missing) => Outcome::fail("qemu-system-aarch64: not found"),
        Some(Qemu::Silent(problem)) => Outcome::fail(problem.clone()),
        Some(Qemu::Answered { program, knows_egm }) => {
            let program = excerpt(&program.to_string_lossy(), 200);
            if *knows_egm {
                return Outcome::passed(program);
            }
            Outcome::fail(format!("{program}: acpi-egm-memory is not supported"))
        }
    }
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
