//! The columns of `list`: one table for the output, the option `-o`, its help, and the parts of the
//! host to read.

use crate::host::{Gpu, Needs, NodeSource, Permissions, Region, Shape};
use crate::report::{Row, labels};
use crate::values::text::printable;
use crate::values::{Bytes, named};

/// One column.
#[non_exhaustive]
pub struct Column {
    /// Its name: capital letters only, so that it is a valid shell variable.
    pub name: &'static str,
    /// The description in `--list-columns`.
    pub help: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// Whether it is shown by default.
    pub default: bool,
    /// The parts of the host that it needs.
    pub needs: Needs,
    value: fn(&Row<'_>) -> ColumnValue,
}

named! {
    /// The kind of a column's values.
    #[non_exhaustive]
    pub enum Kind {
        /// Text.
        Text = "string",
        /// A number.
        Number = "number",
        /// An amount of memory: in human-readable units, or in bytes on request.
        Bytes = "bytes",
        /// Any number of texts.
        List = "list",
    }
}

impl Kind {
    /// Whether its values are right-aligned.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Number | Self::Bytes)
    }
}

/// The value of a column for a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnValue {
    /// Text; `None` if it is unknown or absent.
    Text(Option<String>),
    /// An amount of memory.
    Bytes(Option<Bytes>),
    /// Texts.
    List(Vec<String>),
}

impl Column {
    /// The value for a region.
    #[must_use]
    pub fn value(&self, row: &Row<'_>) -> ColumnValue {
        (self.value)(row)
    }
}

const NOTHING: Needs = Needs::empty();

/// Everything that a list can show or warn about.
pub(crate) const EVERYTHING: Needs = Needs::GPU_NAMES
    .union(Needs::GPU_PCI)
    .union(Needs::OWN_NODES)
    .union(Needs::NUMA)
    .union(Needs::DEVICE_NODE)
    .union(Needs::CLAIMS);

macro_rules! columns {
    ($(default: $default:literal {
        $($name:literal $kind:ident $needs:expr, $help:literal, $value:expr;)*
    })*) => {
        [$($(Column {
            name: $name,
            help: $help,
            kind: Kind::$kind,
            default: $default,
            needs: $needs,
            value: $value,
        },)*)*]
    };
}

/// Every column, in the order in which all of them are shown.
pub static COLUMNS: [Column; 26] = columns! {
    default: true {
        "DEVICE" Text NOTHING, "name of the region", |row| text(row.region.name.as_str());
        "NODE" Number Needs::NUMA, "host NUMA node of the region",
            |row| optional(row.region.numa_node);
        "SIZE" Bytes NOTHING, "size of the region", |row| ColumnValue::Bytes(row.region.size);
        "FREE" Bytes Needs::CLAIMS, "memory available to a VM",
            |row| ColumnValue::Bytes(row.capacity.free);
        "STATE" Text Needs::CLAIMS, "whether a VM can use the region",
            |row| text(row.capacity.state.name());
        "GPUS" List Needs::GPUS, "PCI addresses of its GPUs",
            |row| of_gpus(row.region, |gpu| Some(gpu.address));
        "OWNER" Text Needs::DEVICE_NODE, "user and group of the device node, with + for an ACL",
            |row| of_owner(row.region, |owner| {
                let plus = if owner.acl.is_some() { "+" } else { "" };
                format!("{}:{}{plus}", owner.user, owner.group)
            });
    }
    default: false {
        "HOLDER" List Needs::CLAIMS, "its holders, reservations, and VMs defined with it",
            |row| ColumnValue::List(labels(row.claims));
        "HELD" Bytes Needs::CLAIMS, "memory mapped by its holder",
            |row| ColumnValue::Bytes(row.capacity.held);
        "STRANDED" Bytes Needs::CLAIMS, "memory not mapped by its holder, unusable for others",
            |row| ColumnValue::Bytes(row.capacity.stranded);
        "QUANTITY" Text NOTHING, "size of the region as a Kubernetes quantity",
            |row| optional(row.region.size.map(Bytes::quantity));
        "PATH" Text NOTHING, "path of the device node",
            |row| text(row.region.device.path.to_string_lossy());
        "MAJMIN" Text NOTHING, "major and minor device number",
            |row| optional(row.region.device.number);
        "MODE" Text Needs::DEVICE_NODE, "mode of the device node, with + for an ACL",
            |row| of_owner(row.region, Permissions::mode);
        "USER" Text Needs::DEVICE_NODE, "user of the device node",
            |row| of_owner(row.region, |owner| owner.user.clone());
        "GROUP" Text Needs::DEVICE_NODE, "group of the device node",
            |row| of_owner(row.region, |owner| owner.group.clone());
        "NGPUS" Number Needs::GPUS, "number of its GPUs",
            |row| optional(row.region.learnt_from.first().map(|_| row.region.gpus.len()));
        "NAMES" List Needs::GPU_NAMES, "names of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.name.clone());
        "DRIVERS" List Needs::GPU_DETAILS, "drivers of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.driver.name().map(str::to_owned));
        "IOMMU" List Needs::GPU_DETAILS, "IOMMU groups of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.iommu_group);
        "SMMU" List Needs::GPU_PCI, "SMMUs of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.smmu.clone());
        "NODEFROM" Text Needs::NUMA, "how the NUMA node was determined",
            |row| optional(row.region.numa_node_from.map(NodeSource::name));
        "SHAPE" Text Needs::GPUS, "generation of the driver, by its sysfs layout",
            |row| optional(row.region.shape.map(Shape::name));
        "LEARNT" List Needs::GPUS, "how the GPUs were determined",
            |row| ColumnValue::List(row.region.learnt_from.iter().map(|it| it.name().to_owned()).collect());
        "SYSFS" Text NOTHING, "its directory in sysfs",
            |row| text(row.region.path.to_string_lossy());
        "WARNINGS" Number EVERYTHING, "number of warnings about the region",
            |row| text(row.region.all_warnings().count().to_string());
    }
};

fn text(value: impl Into<String>) -> ColumnValue {
    ColumnValue::Text(Some(value.into()))
}

fn optional(value: Option<impl ToString>) -> ColumnValue {
    ColumnValue::Text(value.map(|value| value.to_string()))
}

/// One value per GPU, so that the values of different columns correspond.
fn of_gpus<T: ToString>(region: &Region, value: impl Fn(&Gpu) -> Option<T>) -> ColumnValue {
    ColumnValue::List(
        region.gpus.iter().map(|gpu| super::or_dash(value(gpu)).into_owned()).collect(),
    )
}

fn of_owner(region: &Region, value: impl Fn(&Permissions) -> String) -> ColumnValue {
    optional(region.device.owner.as_ref().map(value))
}

/// An unknown column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown column `{name}`{}; available: {}", suggestion(name), all_names())]
pub struct NoSuchColumn {
    name: String,
}

/// Other names of the column DEVICE.
const ALIASES: [&str; 2] = ["NAME", "REGION"];

/// The columns selected by `-o`: `LIST`, or `+LIST` in addition to the default ones. Case is ignored;
/// NAME and REGION are DEVICE.
///
/// # Errors
/// A column is unknown.
///
/// ```
/// use egm_probe::output::columns::choose;
///
/// let names = |list| choose(list).map(|columns| columns.iter().map(|c| c.name).collect());
/// assert_eq!(names("size,DEVICE"), Ok(vec!["SIZE", "DEVICE"]));
/// assert_eq!(names("NAME"), Ok(vec!["DEVICE"]));
/// assert_eq!(names("+MODE").unwrap().last(), Some(&"MODE"));
/// assert!(names("SIZES").unwrap_err().to_string().contains("did you mean SIZE?"));
/// ```
pub fn choose(list: &str) -> Result<Vec<&'static Column>, NoSuchColumn> {
    let (mut chosen, list) = match list.strip_prefix('+') {
        Some(more) => (defaults(), more),
        None => (Vec::new(), list),
    };
    for name in list.split(',').map(str::trim) {
        let is_alias = ALIASES.iter().any(|alias| alias.eq_ignore_ascii_case(name));
        let name = if is_alias { "DEVICE" } else { name };
        let column = COLUMNS.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        chosen.push(column.ok_or_else(|| NoSuchColumn { name: printable(name) })?);
    }
    Ok(chosen)
}

/// The default columns.
#[must_use]
pub fn defaults() -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| column.default).collect()
}

fn suggestion(name: &str) -> String {
    let distance = |column: &Column| strsim::levenshtein(&name.to_uppercase(), column.name);
    match COLUMNS.iter().min_by_key(|column| distance(column)) {
        Some(column) if distance(column) <= 2 => format!(" (did you mean {}?)", column.name),
        _ => String::new(),
    }
}

fn all_names() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::COLUMNS;

    #[test]
    fn names_are_unique_shell_words() {
        for (index, column) in COLUMNS.iter().enumerate() {
            let name = column.name;
            assert!(name.bytes().all(|letter| letter.is_ascii_uppercase()), "{name}");
            let again = COLUMNS.iter().skip(index + 1).any(|other| other.name == column.name);
            assert!(!again, "duplicate column {}", column.name);
        }
    }
}
