//! Facts for the checks, read once.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::config::apparmor::Apparmor;
use super::config::kubelet::Kubelet;
use super::config::qemu_conf::QemuConf;
use super::config::runtime;
use super::recording::ARCH;
use super::{Consumer, Installed, kata};
use crate::claims::unseen::Recorded;
use crate::claims::{Claim, holders};
use crate::host::Accounts;
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::udev_rules::HostRules;
use crate::values::numbers::{decimal, number};
use crate::values::{Bytes, PciAddress};
use crate::warning::Warning;

/// The directory of the kernel's settings.
pub(super) const KERNEL: &str = "/proc/sys/kernel";

/// All facts about a host.
pub(super) struct Facts<'a> {
    pub(super) report: &'a Report,
    pub(super) rules: Result<HostRules, String>,
    pub(super) conf: QemuConf,
    pub(super) accounts: &'a Accounts<'a>,
    pub(super) consumer: Consumer,
    pub(super) kernel: Kernel,
    pub(super) iommu_groups: IommuGroups,
    pub(super) apparmor: Apparmor,
    /// Whether `SELinux` is enforcing.
    pub(super) selinux: Result<bool, String>,
    pub(super) processes: Result<Vec<Process>, &'static str>,
    pub(super) huge_pages: Result<Vec<HugePages>, String>,
    pub(super) installed: Installed,
    pub(super) kubelet: Result<Kubelet, String>,
    /// Whether the container runtime gives devices to the user of their pod.
    pub(super) runtime_owns_devices: Result<bool, String>,
    /// For each region, whether Kata Containers finds it.
    pub(super) kata: Vec<bool>,
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
    /// Year and month in which it was built.
    pub(super) built: Option<(u32, u32)>,
    /// In bytes.
    pub(super) page_size: Option<u64>,
    /// Whether the driver's module is loaded.
    pub(super) has_module: bool,
    /// Seconds after which a busy CPU counts as a soft lockup, and whether the kernel then panics.
    /// `kernel.watchdog_thresh` is half of that; 0 disables the detection.
    pub(super) lockup: Option<u64>,
    pub(super) panics: bool,
}

/// The other devices in the GPUs' IOMMU groups.
type IommuGroups = BTreeMap<u32, Result<Vec<Member>, String>>;

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

/// The reason for facts that a capture lacks.
const NOT_RECORDED: &str = "not in the capture";

/// The libvirt daemons that start QEMU.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

impl<'a> Facts<'a> {
    pub(super) fn read(
        root: &'a Sysroot,
        report: &'a Report,
        accounts: &'a Accounts<'a>,
        consumer: Consumer,
        installed: Installed,
        occupancy: bool,
        allow: &'a [&'a str],
    ) -> Self {
        let sizes = root.entries(HUGE_PAGES).unwrap_or_default();
        let recorded = root.recorded();
        let is_lacking = recorded.is_some_and(|recorded| !recorded.has_configuration);
        Self {
            rules: unless(is_lacking, || Ok(HostRules::read(root))),
            conf: unless(is_lacking, || Ok(QemuConf::read(root)))
                .unwrap_or_else(QemuConf::Unreadable),
            kernel: Kernel::read(root, &sizes),
            apparmor: unless(is_lacking, || Ok(Apparmor::read(root)))
                .unwrap_or_else(Apparmor::Unknown),
            selinux: unless(is_lacking, || read_selinux(root)),
            huge_pages: unless(is_lacking, || Ok(read_huge_pages(root, sizes))),
            iommu_groups: read_iommu_groups(root, report),
            processes: match (recorded, occupancy) {
                (Some(_), _) => Err(NOT_RECORDED),
                (None, true) => Ok(read_processes(root, report)),
                (None, false) => Err("processes were not checked"),
            },
            kubelet: unless(is_lacking, || Kubelet::read(root)),
            runtime_owns_devices: unless(is_lacking, || runtime::owns_devices(root)),
            kata: report.host.regions.iter().map(|region| kata::finds(root, region)).collect(),
            domains_unread: if Recorded::of(root).claims.is_none() && recorded.is_some() {
                Some(NOT_RECORDED.into())
            } else {
                domains_unread(report, occupancy)
            },
            accounts,
            consumer,
            installed,
            allow,
            report,
        }
    }
}

/// A fact that older captures lack.
fn unless<T>(is_lacking: bool, read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    if is_lacking { Err(NOT_RECORDED.to_owned()) } else { read() }
}

fn domains_unread(report: &Report, occupancy: bool) -> Option<String> {
    if !occupancy {
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
        let setting = |name: &str| decimal::<u64>(&line(root, &format!("{KERNEL}/{name}"))?);
        let is_off = |name: &str| setting(name) == Some(0);
        let own_arch = || root.may_ask_system().then(|| std::env::consts::ARCH.to_owned());
        Self {
            // Since Linux 6.1. With older kernels, the program's own architecture is used.
            arch: line(root, ARCH).or_else(own_arch),
            release: line(root, &format!("{KERNEL}/osrelease")),
            built: line(root, &format!("{KERNEL}/version")).and_then(|text| built(&text)),
            page_size: page_size(root, huge_pages),
            has_module: root.stat("/sys/module/nvgrace_egm").is_ok(),
            lockup: setting("watchdog_thresh")
                .filter(|_| !is_off("watchdog") && !is_off("soft_watchdog"))
                .map(|half| half.saturating_mul(2)),
            panics: setting("softlockup_panic").is_some_and(|panics| panics != 0),
        }
    }
}

/// When NVIDIA's kernels began to clear regions in pieces of 1 GiB, and not to oops.
const MENDED: (u32, u32) = (2026, 2);

impl Kernel {
    /// Version and patch level of NVIDIA's kernels.
    fn nvidia(&self) -> Option<(u32, u32)> {
        let release = self.release.as_deref().filter(|release| release.contains("nvidia"))?;
        let mut numbers = release.split(['.', '-']);
        Some((decimal(numbers.next()?)?, decimal(numbers.next()?)?))
    }

    /// Whether the driver clears a region in pieces, between which other tasks run.
    pub(super) fn clears_in_pieces(&self) -> bool {
        let built = self.built.is_some_and(|built| built >= MENDED);
        self.nvidia().is_some_and(|version| version > (6, 17) || version == (6, 17) && built)
    }

    /// Whether it is known to oops when a guest with EGM ends.
    pub(super) fn may_oops(&self) -> bool {
        let is_old = self.built.is_some_and(|built| built < MENDED);
        is_old && matches!(self.nvidia(), Some((6, 14 | 17)))
    }
}

/// The date in the kernel's version, `#8-Ubuntu SMP PREEMPT_DYNAMIC Fri Feb 20 21:11:13 UTC 2026`.
fn built(version: &str) -> Option<(u32, u32)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = |word: &str| MONTHS.iter().position(|month| *month == word);
    let month = u32::try_from(version.split_whitespace().find_map(month)?).ok()?;
    Some((decimal(version.split_whitespace().next_back()?)?, month + 1))
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

fn read_iommu_groups(root: &Sysroot, report: &Report) -> IommuGroups {
    let mut groups = BTreeMap::new();
    let gpus = report.host.regions.iter().flat_map(|region| &region.gpus);
    for group in gpus.filter_map(|gpu| gpu.iommu_group) {
        groups.entry(group).or_insert_with(|| members(root, report, group));
    }
    groups
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
        // A helper maps the memory that its virtual machine has locked.
        if let Claim::Process(process) = claim
            && process.helper_of.is_none()
        {
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
