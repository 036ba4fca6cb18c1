//! Leases: regions reserved for a virtual machine for a limited time. They are advisory:
//! cooperating programs honour them, the kernel does not.
//!
//! All leases are in one file, which is replaced by rename. Readers therefore need no lock, and
//! several regions are reserved together or not at all.

use std::collections::BTreeSet;
use std::io;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::keeper::Keeper;
use crate::sysroot::{Sysroot, describe, unless_gone};
use crate::values::text::{SHOWN, excerpt, is_plain};
use crate::values::{Moment, RegionName};

/// The file of all leases, below the root.
pub const LEASES: &str = "/run/egm-probe/leases.json";

/// The schema and its version.
const SCHEMA: &str = "egm-probe.leases/1";

/// Maximum size of the file. A lease takes less than 1 KiB, and a host has at most 256 regions.
pub(crate) const SIZE_LIMIT: usize = 1 << 20;

/// Maximum length of a virtual machine's name. libvirt's own limit is that of a file name.
const NAME_LIMIT: usize = 200;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    schema: String,
    leases: Vec<Lease>,
}

/// One entry of the file: the regions that were reserved together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) regions: BTreeSet<RegionName>,
    /// The virtual machine's name.
    #[serde(rename = "for", deserialize_with = "name")]
    pub(crate) domain: String,
    pub(crate) expires: Moment,
    /// The process without which it is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Keeper>,
    /// Keys of later versions, preserved when the file is rewritten.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// A region's lease, as a claim on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseClaim {
    /// The name of the virtual machine that the region is reserved for.
    pub domain: String,
    /// When the lease ends.
    pub expires: Moment,
    /// The process with which it ends, if any.
    pub pid: Option<u32>,
}

impl LeaseClaim {
    /// A region reserved for a virtual machine until `expires`.
    #[must_use]
    pub fn new(domain: impl Into<String>, expires: Moment) -> Self {
        Self { domain: domain.into(), expires, pid: None }
    }

    /// `vm1 until 2026-11-23T14:30:00Z` or `vm1 while process 4242 runs`
    pub(crate) fn describe(&self) -> String {
        let domain = excerpt(&self.domain, SHOWN);
        match self.pid {
            Some(pid) => format!("{domain} while process {pid} runs"),
            None => format!("{domain} until {}", self.expires),
        }
    }
}

/// The leases that have not ended, or the problem with the file.
pub(crate) fn read(root: &Sysroot, now: Moment) -> Result<Vec<Lease>, String> {
    let bytes = match unless_gone(|| root.read(LEASES, SIZE_LIMIT)) {
        Ok(bytes) => bytes,
        // If a parent is a regular file, the directory is broken rather than missing.
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(describe(&error.cause)),
    };
    let mut leases = parse(&bytes)?;
    // A capture has only the leases that were not void.
    let is_void = |lease: &Lease| root.recorded().is_none() && lease.is_void();
    leases.retain(|lease| lease.expires > now && !is_void(lease));
    Ok(leases)
}

impl Lease {
    /// Whether its process is gone.
    fn is_void(&self) -> bool {
        self.process.as_ref().is_some_and(Keeper::is_gone)
    }
}

/// The text of the file without void leases: those cannot be recognised later.
pub(crate) fn without_void(bytes: &[u8]) -> Vec<u8> {
    let Ok(mut leases) = parse(bytes) else { return bytes.to_owned() };
    let count = leases.len();
    leases.retain(|lease| !lease.is_void());
    if leases.len() == count {
        return bytes.to_owned();
    }
    write(leases).unwrap_or_default()
}

/// All leases in the text of the file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Lease>, String> {
    let Document { schema, leases } =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if schema == SCHEMA { Ok(leases) } else { Err(format!("schema `{schema}`, expected {SCHEMA}")) }
}

/// The text of the file.
pub(crate) fn write(leases: Vec<Lease>) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Document { schema: SCHEMA.into(), leases })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Whether a text can be the name that a region is reserved for.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_LIMIT && name.chars().all(is_plain)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_name(&name) {
        Ok(name)
    } else {
        Err(D::Error::custom("invalid name of a virtual machine"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Keeper, parse, without_void, write};
    use crate::values::Moment;

    #[test]
    fn moments_are_shown_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_444_200, "2026-11-23T14:30:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment(seconds).to_string(), shown);
        }
    }

    #[test]
    fn only_files_of_this_schema_are_read() {
        let good = r#"{"schema":"egm-probe.leases/1","leases":[{"regions":["egm4","egm10"],"for":"vm1","expires":"2026-11-29T12:00:00Z","pid":7}]}"#;
        let leases = parse(good.as_bytes()).unwrap();
        assert_eq!(leases[0].expires, Moment(1_795_953_600));
        assert_eq!(
            write(leases).unwrap(),
            format!("{good}\n").as_bytes(),
            "unknown keys are preserved"
        );
        let kept = r#"{"regions":["egm4"],"for":"vm1","expires":"9999-12-31T23:59:59Z","process":{"pid":7,"start":9,"context":"another boot"}}"#;
        let kept = format!(r#"{{"schema":"egm-probe.leases/1","leases":[{kept}]}}"#);
        assert_eq!(write(parse(kept.as_bytes()).unwrap()).unwrap(), format!("{kept}\n").as_bytes());
        assert_eq!(without_void(kept.as_bytes()), kept.as_bytes(), "it may still run");
        assert!(parse(kept.replace("\"start\":9,", "").as_bytes()).is_err());
        // A process with the ID of this one that has exited.
        let mut gone = serde_json::to_value(Keeper::this_process().unwrap()).unwrap();
        gone["start"] = 1.into();
        let process = r#"{"pid":7,"start":9,"context":"another boot"}"#;
        let void = without_void(kept.replace(process, &gone.to_string()).as_bytes());
        assert_eq!(void, b"{\"schema\":\"egm-probe.leases/1\",\"leases\":[]}\n");
        assert_eq!(without_void(b"damaged"), b"damaged");
        for (from, to, problem) in [
            ("leases/1", "leases/2", "schema `egm-probe.leases/2`, expected egm-probe.leases/1"),
            ("egm10", "banana", "`banana`: invalid region name"),
            ("vm1", " ", "invalid name of a virtual machine"),
            ("2026-11-29T12:00:00Z", "soon", "timestamp"),
            ("\"for\"", "\"by\"", "missing field `for`"),
            ("}]}", "}]", "EOF while parsing"),
        ] {
            let error = parse(good.replace(from, to).as_bytes());
            let error = error.map(|_| panic!("{to} is accepted")).unwrap_err();
            assert!(error.contains(problem), "{to}: {error}");
        }
    }
}
