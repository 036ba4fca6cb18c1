//! Facts for the checks, read once.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::Installed;
use super::config::apparmor::Apparmor;
use super::config::qemu_conf::QemuConf;
use crate::claims::{Claim, holders};
use crate::host::{Accounts, Needs};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::udev_rules::HostRules;
use crate::values::numbers::{decimal, number};
use crate::values::{Bytes, PciAddress};
use crate::warning::Warning;

/// All facts about a host.
pub(super) struct Facts<'a> {
    pub(super) report: Report,
    pub(super) rules: HostRules,
    pub(super) conf: QemuConf,
    pub(super) accounts: Accounts<'a>,
    pub(super) kernel: Kernel,
    pub(super) iommu: Iommu,
    pub(super) apparmor: Apparmor,
    /// Whether `SELinux` is enforcing.
    pub(super) selinux: Result<bool, String>,
    pub(super) processes: Vec<Process>,
    pub(super) huge_pages: Vec<HugePages>,
    pub(super) installed: Installed,
    /// The reason why the defined domains are unknown.
    pub(super) domains_unread: Option<String>,
    /// The codes whose findings are notes.
    pub(super) allow: &'a [&'a str],
}

/// The running kernel.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// `aarch64`
    pub(super) arch: Option<String>,
    /// `6.14.0-1007-nvidia-64k`
    pub(super) release: Option<String>,
    /// In bytes.
    pub(super) page_size: Option<u64>,
    /// Whether the driver's module is loaded.
    pub(super) has_module: bool,
    /// Seconds after which a busy CPU counts as a soft lockup, and whether the kernel then panics.
    /// `kernel.watchdog_thresh` is half of that; 0 disables the detection.
    pub(super) lockup: Option<u64>,
    pub(super) panics: bool,
}

#[derive(Debug, Default)]
pub(super) struct Iommu {
    /// The other devices in the GPUs' groups.
    pub(super) groups: BTreeMap<u32, Result<Vec<Member>, String>>,
}

/// A device in an IOMMU group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) address: PciAddress,
    /// Class, subclass and programming interface.
    pub(super) class: Option<u64>,
}

/// A libvirt daemon or a process that holds a region, and its limit for locked memory.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    /// `None` without a limit.
    pub(super) locked_limit: Option<Bytes>,
    /// Whether it may raise its limits (`CAP_SYS_RESOURCE`); `None` if unknown.
    pub(super) may_raise: Option<bool>,
    /// Memory that it must lock as a holder.
    pub(super) held: Option<Bytes>,
}

/// Reserved huge pages of one size.
#[derive(Debug)]
pub(super) struct HugePages {
    pub(super) directory: String,
    pub(super) size: Bytes,
    pub(super) count: u64,
    pub(super) free: Option<u64>,
}

/// The libvirt daemons that start QEMU.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

impl<'a> Facts<'a> {
    pub(super) fn read(
        root: &'a Sysroot,
        needs: Needs,
        installed: Installed,
        allow: &'a [&'a str],
    ) -> Self {
        let accounts = Accounts::of(root);
        let report = Report::read_with(root, needs, &accounts);
        let sizes = root.entries(HUGE_PAGES).unwrap_or_default();
        let domains_unread = domains_unread(&report, needs);
        let processes = read_processes(root, &report);
        let iommu = Iommu::read(root, &report);
        Self {
            rules: HostRules::read(root),
            conf: QemuConf::read(root),
            kernel: Kernel::read(root, &sizes),
            apparmor: Apparmor::read(root),
            selinux: read_selinux(root),
            huge_pages: read_huge_pages(root, sizes),
            accounts,
            iommu,
            processes,
            installed,
            domains_unread,
            allow,
            report,
        }
    }
}

fn domains_unread(report: &Report, needs: Needs) -> Option<String> {
    if !needs.contains(Needs::CLAIMS) {
        return Some("domains were not checked (--no-occupancy)".into());
    }
    let is_libvirts = |warning: &&Warning| match warning {
        Warning::Unreadable { path, .. } | Warning::BadDefinition { path, .. } => {
            path.starts_with("/etc/libvirt") || path.starts_with("/run/libvirt")
        }
        _ => false,
    };
    report.claims.warnings.iter().find(is_libvirts).map(ToString::to_string)
}

fn line(root: &Sysroot, path: &str) -> Option<String> {
    Some(root.read_text(path).ok()?.trim().to_owned())
}

impl Kernel {
    fn read(root: &Sysroot, huge_pages: &[String]) -> Self {
        let setting =
            |name: &str| decimal::<u64>(&line(root, &format!("/proc/sys/kernel/{name}"))?);
        let is_off = |name: &str| setting(name) == Some(0);
        let own_arch = || root.may_ask_system().then(|| std::env::consts::ARCH.to_owned());
        Self {
            // Since Linux 6.1. With older kernels, the program's own architecture is used.
            arch: line(root, "/proc/sys/kernel/arch").or_else(own_arch),
            release: line(root, "/proc/sys/kernel/osrelease"),
            page_size: page_size(root, huge_pages),
            has_module: root.stat("/sys/module/nvgrace_egm").is_ok(),
            lockup: setting("watchdog_thresh")
                .filter(|_| !is_off("watchdog") && !is_off("soft_watchdog"))
                .map(|half| half.saturating_mul(2)),
            panics: setting("softlockup_panic").is_some_and(|panics| panics != 0),
        }
    }
}

/// On the running host, from the C library; elsewhere, derived from the kernel's huge page sizes:
/// 512 MiB only with 64 KiB pages, 32 MiB with 16 KiB and 64 KiB with 4 KiB on arm64, 1 GiB with 4
/// KiB elsewhere (`Documentation/arch/arm64/hugetlbpage.rst`).
fn page_size(root: &Sysroot, huge_pages: &[String]) -> Option<u64> {
    if root.may_ask_system() {
        let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        return size.and_then(|size| u64::try_from(size).ok());
    }
    let has = |kib: u64| huge_pages.contains(&format!("hugepages-{kib}kB"));
    if has(512 << 10) {
        Some(64 << 10)
    } else if has(32 << 10) && !has(64) {
        Some(16 << 10)
    } else if has(64) || has(1 << 20) {
        Some(4 << 10)
    } else {
        None
    }
}

impl Iommu {
    fn read(root: &Sysroot, report: &Report) -> Self {
        let mut groups = BTreeMap::new();
        let gpus = report.host.regions.iter().flat_map(|region| &region.gpus);
        for group in gpus.filter_map(|gpu| gpu.iommu_group) {
            groups.entry(group).or_insert_with(|| members(root, report, group));
        }
        Self { groups }
    }
}

fn members(root: &Sysroot, report: &Report, group: u32) -> Result<Vec<Member>, String> {
    let path = format!("/sys/kernel/iommu_groups/{group}/devices");
    let names = root.entries(&path).map_err(|error| error.to_string())?;
    let addresses = names.iter().filter_map(|name| name.parse::<PciAddress>().ok());
    let member = |address: PciAddress| {
        let known = report.host.gpu(address).and_then(|(gpu, _)| gpu.class.map(u64::from));
        let read = || number(&line(root, &format!("/sys/bus/pci/devices/{address}/class"))?);
        Member { address, class: known.or_else(read) }
    };
    Ok(addresses.map(member).collect())
}

/// Whether `SELinux` is enforcing.
fn read_selinux(root: &Sysroot) -> Result<bool, String> {
    match root.read_text("/sys/fs/selinux/enforce") {
        Ok(text) => Ok(text.trim() == "1"),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// libvirt daemons and the holders of regions.
fn read_processes(root: &Sysroot, report: &Report) -> Vec<Process> {
    let mut held: BTreeMap<u32, u64> = BTreeMap::new();
    for claim in report.claims.by_region.values().flatten() {
        if let Claim::Process(process) = claim {
            let sum = held.entry(process.pid).or_default();
            *sum = sum.saturating_add(process.ranges.total().0);
        }
    }
    let mut processes = Vec::new();
    for pid in holders::list(root).unwrap_or_default() {
        let held = held.get(&pid).copied();
        // The kernel truncates names to 15 characters.
        let Some(name) = line(root, &format!("/proc/{pid}/comm")) else { continue };
        if held.is_some() || DAEMONS.contains(&name.as_str()) {
            processes.extend(Process::read(root, pid, name, held));
        }
    }
    processes
}

impl Process {
    /// `None` if its limits cannot be read: it may have exited.
    fn read(root: &Sysroot, pid: u32, name: String, held: Option<u64>) -> Option<Self> {
        const SYS_RESOURCE: u32 = 24;
        let limits = root.read_text(format!("/proc/{pid}/limits")).ok()?;
        // `Max locked memory         8388608              8388608              bytes`
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        let soft = limit.split_whitespace().next()?;
        let locked_limit = if soft == "unlimited" { None } else { Some(Bytes(decimal(soft)?)) };
        let status = root.read_text(format!("/proc/{pid}/status")).unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = capabilities.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
        let may_raise = capabilities.map(|it| it & (1 << SYS_RESOURCE) != 0);
        Some(Self { pid, name, locked_limit, may_raise, held: held.map(Bytes) })
    }
}

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

fn read_huge_pages(root: &Sysroot, directories: Vec<String>) -> Vec<HugePages> {
    let read = |directory: String| {
        let kib = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let size = Bytes(decimal::<u64>(kib)?.checked_mul(1024)?);
        let attribute = |name: &str| {
            let path = Path::new(HUGE_PAGES).join(&directory).join(name);
            decimal::<u64>(root.read_text(path).ok()?.trim())
        };
        let (count, free) = (attribute("nr_hugepages")?, attribute("free_hugepages"));
        Some(HugePages { directory, size, count, free })
    };
    directories.into_iter().filter_map(read).filter(|pages| pages.count > 0).collect()
}
