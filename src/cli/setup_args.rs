//! The arguments of the commands that make a host ready: `doctor` and `udev`.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::parse_region;
use crate::udev_rules::{AccountName, Label, Mode};
use crate::values::RegionName;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// JSON (egm-probe.doctor/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
    /// Print nothing: the exit code tells
    #[arg(short, long, conflicts_with_all = ["json", "fix_plan"])]
    pub(super) quiet: bool,
    /// Print a shell script of what could be done, for you to read; nothing is run
    #[arg(long, conflicts_with = "json")]
    pub(super) fix_plan: bool,
    /// Ask this QEMU [default: the one that is installed, on the running host]
    #[arg(long, value_name = "PROGRAM")]
    pub(super) qemu: Option<PathBuf>,
    /// Read libvirt's schema in DIR [default: /usr/share/libvirt/schemas, on the running host]
    #[arg(long, value_name = "DIR")]
    pub(super) schema: Option<PathBuf>,
    /// Explain a check, such as D11, and exit; "all" lists them
    #[arg(long, value_name = "CODE", exclusive = true)]
    pub(super) explain: Option<String>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum UdevCommand {
    /// Print the rules
    Print(RuleArgs),
    /// Write the rules, apply them, and verify the result
    Install(UdevInstallArgs),
    /// Show whether the devices match the rules
    Status(UdevStatusArgs),
    /// Remove the installed rules, and reset devices that no other rule sets
    Uninstall(UdevFileArgs),
    /// Print the links of a region's device (called by the rules)
    #[command(hide = true)]
    Links(UdevLinksArgs),
    /// Make udev process all regions again (called by the rules when a GPU is added or removed)
    #[command(hide = true)]
    Refresh,
}

#[derive(Args, Debug)]
pub(super) struct RuleArgs {
    /// Owner of the devices
    #[arg(long, value_name = "NAME", default_value = "root")]
    pub(super) user: AccountName,
    /// Group of the devices: one that QEMU is in
    #[arg(long, value_name = "NAME", default_value = "kvm")]
    pub(super) group: AccountName,
    /// Permission bits of the devices
    #[arg(long, value_name = "MODE", default_value = "0660")]
    pub(super) mode: Mode,
    /// SELinux label of the devices, as system_u:object_r:svirt_image_t:s0
    #[arg(long, value_name = "CONTEXT")]
    pub(super) selinux: Option<Label>,
}

#[derive(Args, Debug)]
pub(super) struct UdevFileArgs {
    /// Write below DIR only, as packagers do, and leave the running system alone
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Write the file without reloading udev
    #[arg(long)]
    pub(super) no_reload: bool,
    /// Show the difference without changing anything
    #[arg(long)]
    pub(super) dry_run: bool,
    /// JSON (egm-probe.udev/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct UdevInstallArgs {
    #[command(flatten)]
    pub(super) rule: RuleArgs,
    #[command(flatten)]
    pub(super) file: UdevFileArgs,
    /// Allow a missing user or group and a world-accessible mode; replace another's file, saved as
    /// 60-egm.rules.orig
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct UdevStatusArgs {
    /// JSON (egm-probe.udev/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct UdevLinksArgs {
    /// The region, as egm4
    #[arg(value_name = "REGION", value_parser = parse_region)]
    pub(super) region: RegionName,
}
