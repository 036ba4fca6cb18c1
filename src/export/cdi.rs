//! A specification of the Container Device Interface (CDI).
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{Inventory, LeftOut, Reason, Unit};
use crate::host::iommufd;
use crate::host::{Gpu, is_passthrough};
use crate::values::text::{SHOWN, excerpt};

/// The kind of a CDI device: vendor and class, `nvidia.com/egm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(String);

/// Invalid kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid kind `{0}` (expected a domain name and a class, such as nvidia.com/egm)")]
pub struct BadKind(String);

impl Kind {
    /// The version of CDI that a kind needs: before 0.6.0, a class had no dots.
    fn version(&self) -> &'static str {
        let has_dot = self.0.split_once('/').is_some_and(|(_, class)| class.contains('.'));
        if has_dot { "0.6.0" } else { "0.3.0" }
    }
}

impl FromStr for Kind {
    type Err = BadKind;

    fn from_str(text: &str) -> Result<Self, BadKind> {
        let is_name = |name: &str, most: usize| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            name.len() <= most
                && name.bytes().all(is_inner)
                && name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        };
        match text.split_once('/') {
            Some((vendor, class)) if is_name(vendor, 253) && is_name(class, 63) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadKind(excerpt(text, SHOWN))),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A CDI specification. Runtimes refuse one without devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cdi {
    #[serde(rename = "cdiVersion")]
    version: &'static str,
    kind: String,
    devices: Vec<Device>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    device_nodes: Vec<Node>,
}

/// A device node, whose type and number the runtime reads from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    path: String,
    /// Read and write; a container need not create the node.
    permissions: &'static str,
}

impl Cdi {
    /// A device for each region of an inventory whose GPUs have device nodes, and the regions that
    /// have no device.
    #[must_use]
    pub fn new(inventory: &Inventory<'_>, kind: &Kind) -> (Self, Vec<LeftOut>) {
        let mut left_out = inventory.left_out.clone();
        let mut devices = Vec::new();
        for unit in &inventory.units {
            match device(unit, inventory.iommufd == Some(true)) {
                Ok(device) => devices.push(device),
                Err(reason) => {
                    left_out.push(LeftOut { region: unit.region.name.clone(), reason });
                }
            }
        }
        left_out.sort_by(|a, b| a.region.cmp(&b.region));
        (Self { version: kind.version(), kind: kind.to_string(), devices }, left_out)
    }

    /// Whether it has no devices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Its text in JSON.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

fn device(unit: &Unit<'_>, has_iommufd: bool) -> Result<Device, Reason> {
    let region = unit.region;
    if region.node_problem().is_some() {
        return Err(Reason::DeviceNode);
    }
    let mut paths = BTreeSet::new();
    for gpu in unit.gpus {
        paths.extend(vfio_nodes(gpu, has_iommufd)?);
    }
    if has_iommufd {
        paths.insert(iommufd::NODE.to_owned());
    }
    let own = region.device.path.to_string_lossy().into_owned();
    let nodes = [own].into_iter().chain(paths);
    let device_nodes = nodes.map(|path| Node { path, permissions: "rw" }).collect();
    Ok(Device { name: region.name.to_string(), container_edits: Edits { device_nodes } })
}

/// The nodes through which QEMU uses a GPU: its VFIO device with iommufd, else that of its group.
fn vfio_nodes(gpu: &Gpu, has_iommufd: bool) -> Result<Vec<String>, Reason> {
    let address = gpu.address;
    if !is_passthrough(gpu) {
        return Err(Reason::Unbound { address, driver: gpu.driver.in_words() });
    }
    if let (Some(device), true) = (&gpu.vfio_device, has_iommufd) {
        return Ok(vec![format!("/dev/vfio/devices/{device}")]);
    }
    let group = gpu.iommu_group.ok_or(Reason::NoVfio(address))?;
    Ok(vec![format!("/dev/vfio/{group}"), "/dev/vfio/vfio".into()])
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_follow_the_rules_of_cdi() {
        let version = |text: &str| text.parse::<Kind>().map(|kind| kind.version());
        assert_eq!(version("nvidia.com/egm"), Ok("0.3.0"));
        assert_eq!(version("v/c"), Ok("0.3.0"));
        assert_eq!(version("nvidia.com/egm.v2"), Ok("0.6.0"));
        let longest = format!("v/{}", "c".repeat(63));
        assert_eq!(version(&longest), Ok("0.3.0"));
        for text in [
            "",
            "egm",
            "/egm",
            "nvidia.com/",
            "1.com/egm",
            "nvidia.com/1egm",
            "nvidia.com/egm-",
            "nvidia.com./egm",
            "nvidia com/egm",
            "nvidia.com/egm/2",
            "nvidia.com/egm=4",
            "nvidia.com/égm",
            &format!("{longest}c"),
            &format!("{}/c", "v".repeat(254)),
        ] {
            assert!(version(text).is_err(), "{text}");
        }
    }
}
