//! Checks of a domain: the rules of libvirt and QEMU, this host, and libvirt's schema.

mod cells;
#[cfg(feature = "cli")]
mod datatypes;
mod devices;
mod distances;
#[cfg(feature = "cli")]
mod features;
mod host;
mod limits;
mod machine;
mod pairs;
mod policy;
#[cfg(feature = "cli")]
mod prune;
mod rule;
mod rules;
#[cfg(feature = "cli")]
mod schema;
#[cfg(feature = "cli")]
mod schema_files;
mod smmu;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::domain::{
    Cell, Dialect, Document, Domain, EgmDevice, Encoding, Hostdev, is_lasting_alias,
};
use crate::host::Needs;
use crate::host::Region;
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::numbers::decimal;
use crate::values::text::excerpt;
pub use rule::{Rule, Severity};
pub use rules::RULES;
pub(crate) use rules::{
    ACPI, CELL_SUM, DEFINED, GPU_BUS, GPU_SMMU, INCOMPLETE, IOMMUFD, MAX_MEMORY, NO_GPU,
    NO_HOSTDEV, NO_MAX_MEMORY, NODE, NOT_A_REGION, OBSOLETE, OF_BUSES, OF_GPU_CELLS, OF_HOLE,
    PCI_HOLE, SIZE, SMMU_BUS, TOPOLOGY, TOTAL, UEFI,
};
use rules::{BEYOND, ENCODING, RELEASED, UNEVEN};
#[cfg(feature = "cli")]
pub use schema::{SCHEMAS, Schema};

/// The inputs of a check, in addition to the domain.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// The libvirt whose spelling is expected.
    pub dialect: Dialect,
    /// The host, read with [`NEEDS`]; `None` skips its rules.
    pub report: Option<&'a Report>,
    /// The files of that host, to find a region by another name of its device.
    pub root: Option<&'a Sysroot>,
    /// Whether the domain is about to start: each of its regions must be available to it.
    pub is_starting: bool,
    /// libvirt's schema; `None` skips it.
    #[cfg(feature = "cli")]
    pub schema: Option<&'a Schema>,
    /// Whether the schema is that of the libvirt that will define the domain.
    #[cfg(feature = "cli")]
    pub is_installed: bool,
    /// Rules whose findings are downgraded to notes.
    pub allow: &'a [Rule],
}

/// A missing or invalid libvirt schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: unusable libvirt schema: {problem}", excerpt(&directory.to_string_lossy(), 300))]
#[non_exhaustive]
pub struct BadSchema {
    /// Its directory.
    pub directory: PathBuf,
    /// The problem.
    pub problem: String,
}

impl BadSchema {
    #[cfg(feature = "cli")]
    fn new(directory: &Path, problem: String) -> Self {
        Self { directory: directory.to_owned(), problem }
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The severity: that of the rule, unless the finding was allowed.
    pub severity: Severity,
    /// Whether the user allowed it, which makes it a note.
    pub allowed: bool,
    /// The place of the invalid value in the source.
    pub span: Range<usize>,
    /// The problem.
    pub message: String,
    /// A remedy, or the correct value.
    pub help: Option<String>,
}

/// A domain with lookup tables.
struct Subject<'a> {
    domain: &'a Domain,
    dialect: Dialect,
    report: Option<&'a Report>,
    hostdevs: BTreeMap<&'a str, &'a Hostdev>,
    /// The devices without a lasting alias, in order: libvirt numbers them `hostdev0`, ..
    renamed: Vec<&'a Hostdev>,
    cells: BTreeMap<u32, &'a Cell>,
}

impl<'a> Subject<'a> {
    fn new(domain: &'a Domain, dialect: Dialect, report: Option<&'a Report>) -> Self {
        let mut cells = BTreeMap::new();
        for cell in &domain.cells {
            if let Some(id) = cell.id.value {
                cells.entry(id).or_insert(cell);
            }
        }
        let lasts = |hostdev: &&Hostdev| {
            let alias = hostdev.alias.as_ref().map(|alias| alias.text.as_str());
            domain.is_status || alias.is_some_and(is_lasting_alias)
        };
        let renamed = domain.hostdevs.iter().filter(|hostdev| !lasts(hostdev)).collect();
        Self { domain, dialect, report, hostdevs: domain.hostdevs_by_alias(), renamed, cells }
    }

    /// The `<hostdev>` of an EGM device's GPU.
    fn hostdev(&self, device: &EgmDevice) -> Option<&'a Hostdev> {
        let alias = device.pci_dev.as_ref()?.text.as_str();
        let generated = || self.renamed.get(self.number(alias)?);
        self.hostdevs.get(alias).or_else(generated).copied()
    }

    /// The region of an EGM device's GPU on this host.
    fn region_of_gpu(&self, device: &EgmDevice) -> Option<&'a Region> {
        self.report?.host.gpu(self.hostdev(device)?.pci()?)?.1
    }

    /// Whether the GPU of an EGM device has another region than that of the device's path.
    fn is_foreign(&self, device: &EgmDevice) -> bool {
        let path = device.path.as_ref().map(|path| Path::new(&path.text));
        let is_other = |region: &Region| path.is_some_and(|path| region.device.path != path);
        self.region_of_gpu(device).is_some_and(is_other)
    }

    /// The alias that libvirt generates in place of this one, if it drops it
    /// (`qemuAssignDeviceHostdevAlias`, `src/qemu/qemu_alias.c`).
    fn replaced_alias(&self, alias: &str) -> Option<String> {
        let is_it = |hostdev: &&Hostdev| self.hostdevs.get(alias) == Some(hostdev);
        let named = self.renamed.iter().position(is_it);
        let index =
            named.or_else(|| self.number(alias).filter(|_| !self.hostdevs.contains_key(alias)));
        index.map(|index| format!("hostdev{}", index + self.domain.interfaces.len()))
    }

    /// The index of the device without a lasting alias that gets this one from libvirt.
    fn number(&self, alias: &str) -> Option<usize> {
        let number: usize = decimal(alias.strip_prefix("hostdev")?)?;
        // Network interfaces that are PCI functions of the host are numbered first.
        number.checked_sub(self.domain.interfaces.len()).filter(|it| *it < self.renamed.len())
    }
}

/// The findings so far.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    /// The places of EGM devices with a finding about the guest cell or GPU that they name. Other
    /// contradictions about them follow from it.
    settled: BTreeSet<usize>,
}

impl Findings {
    /// Whether one of these rules was violated; then skip findings that follow from it.
    fn has(&self, rules: &[Rule]) -> bool {
        self.list.iter().any(|finding| rules.contains(&finding.rule))
    }

    fn add(&mut self, rule: Rule, span: &Range<usize>, message: impl Into<String>) -> &mut Finding {
        let finding = Finding::new(rule, span.clone(), message);
        let index = self.list.len();
        self.list.push(finding);
        // Just pushed.
        #[allow(clippy::indexing_slicing)]
        &mut self.list[index]
    }

    /// Whether suggestions, each of which needs a search, are of no use any more.
    fn are_many(&self) -> bool {
        self.list.len() > 16
    }

    fn settle(&mut self, device: &EgmDevice) {
        self.settled.insert(device.span.start);
    }

    fn is_settled(&self, device: &EgmDevice) -> bool {
        self.settled.contains(&device.span.start)
    }
}

impl Finding {
    pub(crate) fn new(rule: Rule, span: Range<usize>, message: impl Into<String>) -> Self {
        let severity = rule.severity;
        Self { rule, severity, allowed: false, span, message: message.into(), help: None }
    }

    /// Makes it a note.
    pub(crate) fn allow(&mut self) {
        self.severity = Severity::Note;
        self.allowed = true;
    }

    fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

/// QEMU's limit of NUMA cells (`MAX_NODES`, `include/sysemu/numa.h`).
pub(crate) const CELLS_LIMIT: usize = 128;

/// The parts of a host that its rules need, for [`Report::read`].
pub const NEEDS: Needs = Needs::OTHER_GPUS
    .union(Needs::CLAIMS)
    .union(Needs::NUMA_NODES)
    .union(Needs::DEVICE_NODE)
    .union(Needs::DEVICE_LINKS);

/// Checks a domain against the rules, and the host and libvirt's schema if `options` has them. The
/// findings are in the order of the source.
///
/// # Errors
/// The schema is invalid, which shows only in use.
///
/// ```
/// use egm_probe::check::{CheckOptions, RULES, Severity, validate};
/// use egm_probe::domain::Document;
///
/// let text = "<domain><name>vm1</name><devices><memory model='egm'/></devices></domain>";
/// let document = Document::parse(text)?;
/// let findings = validate(&document, &CheckOptions::default())?;
/// assert!(findings.iter().any(|finding| finding.rule.code == "EGM001"), "no path");
/// let allowed = validate(&document, &CheckOptions { allow: RULES, ..CheckOptions::default() })?;
/// assert!(allowed.iter().all(|finding| finding.severity == Severity::Note));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg_attr(not(feature = "cli"), allow(clippy::unnecessary_wraps))]
pub fn validate(
    document: &Document<'_>,
    options: &CheckOptions<'_>,
) -> Result<Vec<Finding>, BadSchema> {
    let mut findings = check(document.domain(), options);
    if document.encoding() != Encoding::Utf8 {
        let mut finding = Finding::new(ENCODING, 0..0, "unsupported encoding UTF-16");
        finding.help("iconv -f UTF-16 -t UTF-8");
        findings.insert(0, finding);
    }
    #[cfg(feature = "cli")]
    if let Some(schema) = options.schema {
        schema.add_to(&mut findings, document, options)?;
        sort(&mut findings);
    }
    for finding in &mut findings {
        if options.allow.contains(&finding.rule) {
            finding.allow();
        }
    }
    Ok(findings)
}

/// Checks a domain against the rules, including those of the host if there is one, which must have
/// been read with [`NEEDS`]. The findings are in the order of the source.
///
/// ```
/// use egm_probe::check::{CheckOptions, check};
/// use egm_probe::domain::Domain;
///
/// let domain = Domain::parse(
///     "<domain><memory>8388608</memory><cpu><numa><cell memory='8388608'/></numa></cpu><devices>
///        <memory model='egm' access='shared'>
///          <source><path>/dev/egm4</path></source>
///          <target><size>8388608</size><node>0</node><pciDev>ua-gpu</pciDev></target>
///        </memory>
///      </devices></domain>",
/// )?;
/// let findings = check(&domain, &CheckOptions::default());
/// assert!(findings.iter().any(|finding| finding.rule.code == "EGM003"), "no such hostdev");
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[must_use]
pub fn check(domain: &Domain, options: &CheckOptions<'_>) -> Vec<Finding> {
    let CheckOptions { dialect, report, root, is_starting, .. } = *options;
    let mut findings = Findings::default();
    policy::check_forms(domain, &mut findings);
    if !domain.egm.is_empty() {
        let subject = Subject::new(domain, dialect, report);
        cells::check_numbers(domain, &mut findings);
        devices::check(&subject, &mut findings);
        cells::check(&subject, &mut findings);
        machine::check(domain, &mut findings);
        policy::check(&subject, &mut findings);
        smmu::check(&subject, &mut findings);
        distances::check(domain, &mut findings);
        limits::check(domain, &mut findings);
        wiring::check(&subject, &mut findings);
        if let Some(device) = domain.egm.first().filter(|_| !dialect.supports_egm()) {
            let message = format!("{dialect} does not support EGM");
            findings.add(RELEASED, &device.span, message).help("only NVIDIA's libvirt does so far");
        }
        match report {
            Some(report) => host::check(&subject, report, root, is_starting, &mut findings),
            None => devices::check_shifted(&subject, &mut findings),
        }
    }
    // Sums and shares follow from a size that is too large.
    let is_too_large = findings.has(&[BEYOND]);
    let mut findings = findings.list;
    findings.retain(|it| !is_too_large || ![CELL_SUM, TOTAL, UNEVEN].contains(&it.rule));
    sort(&mut findings);
    findings
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| (finding.span.start, finding.rule.code));
}
