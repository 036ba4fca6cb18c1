//! kubelet's configuration, of which a few settings are read line by line.

use std::collections::BTreeMap;

use crate::sysroot::Sysroot;
use crate::values::numbers::decimal;

/// Path of the file.
pub(in crate::doctor) const PATH: &str = "/var/lib/kubelet/config.yaml";

/// Maximum size of the file.
const LIMIT: usize = 1 << 20;

/// Settings that concern EGM; the last is an option of `topologyManagerPolicyOptions`.
const KEYS: [&str; 3] = ["cpuManagerPolicy", "topologyManagerPolicy", "max-allowable-numa-nodes"];

/// The settings of kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Kubelet(BTreeMap<&'static str, String>);

impl Kubelet {
    /// The reason if the settings are unknown.
    pub(in crate::doctor) fn read(root: &Sysroot) -> Result<Self, String> {
        match root.read(PATH, LIMIT) {
            Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.is_absent() => Err(format!("{PATH}: does not exist")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `none` by default, like the other policy.
    pub(in crate::doctor) fn cpu_policy(&self) -> &str {
        self.0.get(KEYS[0]).map_or("none", String::as_str)
    }

    pub(in crate::doctor) fn topology_policy(&self) -> &str {
        self.0.get(KEYS[1]).map_or("none", String::as_str)
    }

    /// How many NUMA nodes the topology manager accepts: 8 by default.
    pub(in crate::doctor) fn nodes_limit(&self) -> usize {
        self.0.get(KEYS[2]).and_then(|limit| decimal(limit)).unwrap_or(8)
    }
}

fn parse(text: &str) -> Kubelet {
    Kubelet(text.lines().flat_map(settings).collect())
}

/// `cpuManagerPolicy: "static"`, in YAML or JSON, also several within braces.
fn settings(line: &str) -> impl Iterator<Item = (&'static str, String)> {
    let line = if line.trim_start().starts_with('#') { "" } else { line };
    let line = line.split(" #").next().unwrap_or_default();
    line.split(['{', '}', ',']).filter_map(|part| {
        let (key, value) = part.split_once(':')?;
        let plain = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        let key = plain(key);
        let key = KEYS.into_iter().find(|known| *known == key)?;
        Some((key, plain(value)))
    })
}

/// These settings alone.
pub(in crate::doctor) fn redact(text: &str) -> String {
    let found = text.lines().flat_map(settings);
    found.flat_map(|(key, value)| [key.to_owned(), ": ".into(), value, "\n".into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::{parse, redact};

    #[test]
    fn settings_are_found_among_others() {
        let text = "kind: KubeletConfiguration\ncpuManagerPolicy: static # for VMs\n\
                    topologyManagerPolicy: 'restricted'\ntopologyManagerPolicyOptions:\n  \
                    max-allowable-numa-nodes: \"36\"\n#cpuManagerPolicy: none\ntoken: secret\n";
        let found = parse(text);
        assert_eq!(
            (found.cpu_policy(), found.topology_policy(), found.nodes_limit()),
            ("static", "restricted", 36)
        );
        assert_eq!(parse(&redact(text)), found);
        assert!(!redact(text).contains("secret"));
        let json = parse("{\n  \"cpuManagerPolicy\": \"static\",\n}\n");
        let none = ("static", "none", 8);
        assert_eq!((json.cpu_policy(), json.topology_policy(), json.nodes_limit()), none);
        for text in [
            "cpuManagerPolicy: static\ntopologyManagerPolicyOptions: {max-allowable-numa-nodes: '36'}\n",
            "{\"cpuManagerPolicy\":\"static\",\"x\":{\"max-allowable-numa-nodes\":\"36\"}}",
        ] {
            let found = parse(text);
            assert_eq!((found.cpu_policy(), found.nodes_limit()), ("static", 36), "{text}");
            assert_eq!(parse(&redact(text)), found, "{text}");
        }
    }
}
