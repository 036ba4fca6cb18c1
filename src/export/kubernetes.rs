//! Labels of a Kubernetes node, and the `NodeFeature` object of Node Feature Discovery (NFD).
//! <https://kubernetes-sigs.github.io/node-feature-discovery/stable/usage/customization-guide>

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Inventory, MAX_NAME, Unit};
use crate::values::Bytes;
use crate::values::text::{SHOWN, excerpt};

/// The prefix of the labels.
const PREFIX: &str = "egm.nvidia.com";

/// The name of a node of Kubernetes, which is also the value of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

/// Invalid name of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid node name `{0}` (expected at most {MAX_NAME} lower-case letters, digits, `-` and `.`, \
     as `kubectl get nodes` prints it)"
)]
pub struct BadNodeName(String);

impl FromStr for NodeName {
    type Err = BadNodeName;

    fn from_str(text: &str) -> Result<Self, BadNodeName> {
        let is_end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_part = |part: &str| {
            part.bytes().all(|byte| is_end(byte) || byte == b'-')
                && part.bytes().next().is_some_and(is_end)
                && part.bytes().last().is_some_and(is_end)
        };
        if text.len() <= MAX_NAME && text.split('.').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadNodeName(excerpt(text, SHOWN)))
        }
    }
}

/// A size in MiB, rounded down: no more than a virtual machine can have.
fn mib(size: Bytes) -> u64 {
    size.0 >> 20
}

/// The labels of a host. Those that describe all regions are missing if some region is left out.
#[must_use]
pub fn labels(inventory: &Inventory<'_>) -> BTreeMap<String, String> {
    let Inventory { units, left_out, is_whole, .. } = inventory;
    let regions = units.len() + left_out.len();
    let mut labels = BTreeMap::new();
    let mut add = |name: &str, value: String| {
        labels.insert(format!("{PREFIX}/{name}"), value);
    };
    add("present", (regions > 0).to_string());
    add("regions", regions.to_string());
    add("whole", is_whole.to_string());
    if left_out.is_empty() {
        let gpus = |unit: &Unit<'_>| unit.gpus.len();
        let total = units.iter().fold(0_u64, |sum, unit| sum.saturating_add(mib(unit.size)));
        add("gpus", units.iter().map(gpus).sum::<usize>().to_string());
        add("memory-mib", total.to_string());
        if let Some(least) = units.iter().map(|unit| mib(unit.size)).min() {
            add("region-memory-mib", least.to_string());
        }
        if let Some(least) = units.iter().map(gpus).min() {
            add("region-gpus", least.to_string());
        }
    }
    labels
}

/// A `NodeFeature` object for a node: the labels, and each region and GPU for rules.
#[must_use]
pub fn node_feature(inventory: &Inventory<'_>, node: &NodeName) -> Value {
    let mut regions = Vec::new();
    let mut gpus = Vec::new();
    for unit in &inventory.units {
        regions.push(json!({ "attributes": {
            "name": unit.region.name,
            "size-mib": mib(unit.size).to_string(),
            "numa-node": unit.node.to_string(),
            "gpus": unit.gpus.len().to_string(),
        } }));
        for gpu in unit.gpus {
            let mut attributes = Map::new();
            attributes.insert("address".into(), gpu.address.to_string().into());
            attributes.insert("region".into(), unit.region.name.to_string().into());
            for (name, id) in [("vendor", gpu.vendor_id), ("device", gpu.device_id)] {
                if let Some(id) = id {
                    attributes.insert(name.into(), format!("{id:04x}").into());
                }
            }
            gpus.push(json!({ "attributes": attributes }));
        }
    }
    json!({
        "apiVersion": "nfd.k8s-sigs.io/v1alpha1",
        "kind": "NodeFeature",
        "metadata": {
            "name": format!("egm-{}", node.0),
            "labels": { "nfd.node.kubernetes.io/node-name": node.0 },
        },
        "spec": {
            "features": {
                "flags": {},
                "attributes": {},
                "instances": {
                    "egm.region": { "elements": regions },
                    "egm.gpu": { "elements": gpus },
                },
            },
            "labels": labels(inventory),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::NodeName;

    #[test]
    fn node_names_are_values_of_labels_as_well() {
        for text in ["n", "grace-1", "10.0.0.1", "a.b-c.example", &"n".repeat(63)] {
            assert!(text.parse::<NodeName>().is_ok(), "{text}");
        }
        for text in [
            "",
            "Grace",
            "-n",
            "n-",
            "a..b",
            "a.-b",
            ".a",
            "a.",
            "a_b",
            "é",
            "a b",
            &"n".repeat(64),
        ] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }
}
