//! Options of QEMU that create devices and objects, in both of its syntaxes.

use std::ops::Range;

use serde_json::Value as Json;

use super::smmu::Attribute;
use super::{Origin, Value};

/// The option that an argument belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionKind {
    Device,
    Object,
    Machine,
}

/// An option with its properties.
#[derive(Clone, Debug)]
pub(super) struct QemuOption {
    pub(super) kind: OptionKind,
    /// The driver of a device, the type of an object or of a machine; empty if there is none.
    pub(super) name: String,
    pub(super) properties: Vec<Attribute>,
    /// The place of its argument.
    pub(super) span: Range<usize>,
}

impl QemuOption {
    /// A property. QEMU uses the last one of several.
    pub(super) fn property<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Value<T>> {
        let property = self.properties.iter().rfind(|property| property.name == name)?;
        Some(property.read(parse))
    }
}

/// The options for devices, objects and the machine among QEMU's arguments.
pub(super) fn read(arguments: &[Value<String>]) -> impl Iterator<Item = QemuOption> {
    let options = arguments.iter().zip(arguments.iter().skip(1));
    options.filter_map(|(option, argument)| {
        let (kind, implied) = match option.text.strip_prefix('-')? {
            "device" | "-device" => (OptionKind::Device, "driver"),
            "object" | "-object" => (OptionKind::Object, "qom-type"),
            "machine" | "-machine" | "M" => (OptionKind::Machine, "type"),
            _ => return None,
        };
        let all = properties(&argument.text, implied)?;
        let (names, properties): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(name, _)| name == implied);
        Some(QemuOption {
            kind,
            name: names.into_iter().next_back().map(|(_, name)| name).unwrap_or_default(),
            properties: properties
                .into_iter()
                .map(|(name, value)| Attribute {
                    name,
                    value,
                    span: argument.span.clone(),
                    value_span: argument.span.clone(),
                    origin: Origin::CommandLine,
                })
                .collect(),
            span: argument.span.clone(),
        })
    })
}

/// The properties in an argument, `implied` being the name of a first value without a name; `None` if
/// it cannot be read.
pub(super) fn properties(argument: &str, implied: &str) -> Option<Vec<(String, String)>> {
    if argument.trim_start().starts_with('{') {
        json(argument)
    } else {
        Some(key_values(argument, implied))
    }
}

/// `{"driver":"arm-smmuv3","accel":true}`; `None` if it is not an object. Lists and objects within
/// it are left out.
fn json(argument: &str) -> Option<Vec<(String, String)>> {
    let Json::Object(object) = serde_json::from_str(argument).ok()? else { return None };
    let pair = |(name, value): (String, Json)| {
        let value = match value {
            Json::String(text) => text,
            Json::Bool(is_on) => if is_on { "on" } else { "off" }.to_owned(),
            // As a number, an address is eight times the slot plus the function.
            Json::Number(number) if name == "addr" => {
                let number = number.as_u64()?;
                format!("{:x}.{:x}", number >> 3, number & 7)
            }
            Json::Number(number) => number.to_string(),
            Json::Null | Json::Array(_) | Json::Object(_) => return None,
        };
        Some((name, value))
    };
    Some(object.into_iter().filter_map(pair).collect())
}

/// `arm-smmuv3,accel=on`: the first part may be a value without a name, a name without a value is a
/// switch, and two commas are one in a value (`qemu_opts_parse`, `util/qemu-option.c`).
fn key_values(argument: &str, implied: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut rest = argument.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let pair = |(index, part): (usize, String)| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None if index == 0 => (implied.to_owned(), part),
        None => (part, "on".to_owned()),
    };
    parts.into_iter().enumerate().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::{json, key_values};

    fn shown(pairs: Vec<(String, String)>) -> String {
        let pairs: Vec<_> =
            pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    }

    #[test]
    fn both_syntaxes_are_read() {
        for (argument, expected) in [
            ("arm-smmuv3,accel=on,ats", "driver=arm-smmuv3 accel=on ats=on"),
            ("driver=x,id=a,,b,id=", "driver=x id=a,b id="),
            ("a,,b", "driver=a,b"),
            (",,,x", "driver=, x=on"),
            ("", "driver="),
        ] {
            assert_eq!(shown(key_values(argument, "driver")), expected, "{argument:?}");
        }
        for (argument, expected) in [
            (r#"{"accel":true,"driver":"x","n":3}"#, Some("accel=on driver=x n=3")),
            (r#"{"addr":17}"#, Some("addr=2.1")),
            (r#"{"addr":-1,"a":[1],"b":{"c":1},"d":null}"#, Some("")),
            ("{", None),
            ("{}x", None),
        ] {
            assert_eq!(json(argument).map(shown).as_deref(), expected, "{argument:?}");
        }
    }
}
