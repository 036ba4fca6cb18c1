//! The columns of `list`: one table that feeds the output, the option `-o`, its help, and what
//! is read of the host at all.

use crate::claims::Claim;
use crate::host::{Gpu, Needs, NodeSource, Permissions, Region, Shape};
use crate::report::Row;
use crate::values::text::printable;
use crate::values::{Bytes, named};

/// One column.
#[non_exhaustive]
pub struct Column {
    /// Its name: capital letters only, so that it can be a shell variable's.
    pub name: &'static str,
    /// What it shows, for `--list-columns`.
    pub help: &'static str,
    /// What kind of value it has.
    pub kind: Kind,
    /// Whether it is shown by default.
    pub default: bool,
    /// What must be read of the host to fill it.
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
        /// An amount of memory: for people, or in bytes where that was asked for.
        Bytes = "bytes",
        /// Any number of texts.
        List = "list",
    }
}

impl Kind {
    /// Whether its values are set to the right.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Number | Self::Bytes)
    }
}

/// What a column says of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnValue {
    /// Text; `None` is unknown or none.
    Text(Option<String>),
    /// An amount of memory.
    Bytes(Option<Bytes>),
    /// Texts.
    List(Vec<String>),
}

impl Column {
    /// What the column says of a region.
    #[must_use]
    pub fn value(&self, row: &Row<'_>) -> ColumnValue {
        (self.value)(row)
    }
}

const NOTHING: Needs = Needs::empty();

/// All that a list can show, and so all that it can warn of.
pub(crate) const EVERYTHING: Needs =
    Needs::GPU_NAMES.union(Needs::NUMA).union(Needs::DEVICE_NODE).union(Needs::CLAIMS);

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
pub static COLUMNS: [Column; 24] = columns! {
    default: true {
        "DEVICE" Text NOTHING, "name of the region", |row| text(row.region.name.as_str());
        "NODE" Number Needs::NUMA, "host NUMA node of the region",
            |row| optional(row.region.numa_node);
        "SIZE" Bytes NOTHING, "size of the region", |row| ColumnValue::Bytes(row.region.size);
        "FREE" Bytes Needs::CLAIMS, "what a VM can have of it",
            |row| ColumnValue::Bytes(row.capacity.free);
        "STATE" Text Needs::CLAIMS, "whether a VM can have it",
            |row| text(row.capacity.state.name());
        "GPUS" List Needs::GPUS, "PCI addresses of its GPUs",
            |row| of_gpus(row.region, |gpu| Some(gpu.address));
        "OWNER" Text Needs::DEVICE_NODE, "user and group of the device node",
            |row| of_owner(row.region, |owner| format!("{}:{}", owner.user, owner.group));
    }
    default: false {
        "HOLDER" List Needs::CLAIMS, "who holds it, or is defined with it",
            |row| ColumnValue::List(row.claims.iter().map(Claim::label).collect());
        "HELD" Bytes Needs::CLAIMS, "what its holder has mapped",
            |row| ColumnValue::Bytes(row.capacity.held);
        "STRANDED" Bytes Needs::CLAIMS, "what its holder has left unmapped, and nobody can have",
            |row| ColumnValue::Bytes(row.capacity.stranded);
        "PATH" Text NOTHING, "path of the device node",
            |row| text(row.region.device.path.to_string_lossy());
        "MAJMIN" Text NOTHING, "major and minor device number",
            |row| optional(row.region.device.number);
        "MODE" Text Needs::DEVICE_NODE, "mode of the device node",
            |row| of_owner(row.region, |owner| format!("{:04o}", owner.mode));
        "USER" Text Needs::DEVICE_NODE, "user of the device node",
            |row| of_owner(row.region, |owner| owner.user.clone());
        "GROUP" Text Needs::DEVICE_NODE, "group of the device node",
            |row| of_owner(row.region, |owner| owner.group.clone());
        "NGPUS" Number Needs::GPUS, "how many GPUs it names",
            |row| optional(row.region.learnt_from.first().map(|_| row.region.gpus.len()));
        "NAMES" List Needs::GPU_NAMES, "names of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.name.clone());
        "DRIVERS" List Needs::GPU_DETAILS, "drivers that its GPUs are bound to",
            |row| of_gpus(row.region, |gpu| gpu.driver.name().map(str::to_owned));
        "IOMMU" List Needs::GPU_DETAILS, "IOMMU groups of its GPUs",
            |row| of_gpus(row.region, |gpu| gpu.iommu_group);
        "NODEFROM" Text Needs::NUMA, "how the NUMA node was learnt",
            |row| optional(row.region.numa_node_from.map(NodeSource::name));
        "SHAPE" Text Needs::GPUS, "generation of the driver",
            |row| optional(row.region.shape.map(Shape::name));
        "LEARNT" List Needs::GPUS, "how the GPUs were learnt",
            |row| ColumnValue::List(row.region.learnt_from.iter().map(|it| it.name().to_owned()).collect());
        "SYSFS" Text NOTHING, "its directory in sysfs",
            |row| text(row.region.path.to_string_lossy());
        "WARNINGS" Number EVERYTHING, "how many warnings there are",
            |row| text(row.region.all_warnings().count().to_string());
    }
};

fn text(value: impl Into<String>) -> ColumnValue {
    ColumnValue::Text(Some(value.into()))
}

fn optional(value: Option<impl ToString>) -> ColumnValue {
    ColumnValue::Text(value.map(|value| value.to_string()))
}

/// One value a GPU, so that those of two columns belong together.
fn of_gpus<T: ToString>(region: &Region, value: impl Fn(&Gpu) -> Option<T>) -> ColumnValue {
    ColumnValue::List(
        region.gpus.iter().map(|gpu| super::or_dash(value(gpu)).into_owned()).collect(),
    )
}

fn of_owner(region: &Region, value: impl Fn(&Permissions) -> String) -> ColumnValue {
    optional(region.device.owner.as_ref().map(value))
}

/// A choice of columns that names one that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no column `{name}`{}; there are: {}", suggestion(name), all_names())]
pub struct NoSuchColumn {
    name: String,
}

/// The columns that `-o` chooses: `LIST`, or `+LIST` for more than the default ones. Upper and
/// lower case are the same.
///
/// # Errors
/// A name is no column's.
///
/// ```
/// use egm_probe::output::columns::choose;
///
/// let names = |list| choose(list).map(|columns| columns.iter().map(|c| c.name).collect());
/// assert_eq!(names("size,DEVICE"), Ok(vec!["SIZE", "DEVICE"]));
/// assert_eq!(names("+MODE").unwrap().last(), Some(&"MODE"));
/// assert!(names("SIZES").unwrap_err().to_string().contains("did you mean SIZE?"));
/// ```
pub fn choose(list: &str) -> Result<Vec<&'static Column>, NoSuchColumn> {
    let (mut chosen, list) = match list.strip_prefix('+') {
        Some(more) => (defaults(), more),
        None => (Vec::new(), list),
    };
    for name in list.split(',').map(str::trim) {
        let column = COLUMNS.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        chosen.push(column.ok_or_else(|| NoSuchColumn { name: printable(name) })?);
    }
    Ok(chosen)
}

/// The columns that are shown where none are chosen.
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
    fn every_name_is_one_shell_word_and_stands_once() {
        for (index, column) in COLUMNS.iter().enumerate() {
            let name = column.name;
            assert!(name.bytes().all(|letter| letter.is_ascii_uppercase()), "{name}");
            let again = COLUMNS.iter().skip(index + 1).any(|other| other.name == column.name);
            assert!(!again, "{} stands twice", column.name);
        }
    }
}
