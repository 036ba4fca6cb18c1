//! The arguments. Their documentation is the help that the program prints.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::host::{BadRegionName, RegionName};
use crate::output::table;
use crate::pci::PciAddress;

/// Find the EGM memory regions of NVIDIA Grace hosts
///
/// Shows which regions of Extended GPU Memory a host can hand to virtual machines, their sizes,
/// and the NUMA nodes and GPUs they belong to. It never opens a region's device.
#[derive(Debug, Parser)]
#[command(name = "egm-probe", version, propagate_version = true, args_override_self = true)]
#[command(after_help = "Exit codes: 0 done; 1 no such region or GPU; 2 wrong usage; 3 no EGM on \
    this host; 4 something could not be read or written.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Read the host whose sys, proc, .. lie below DIR
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "from")]
    pub(super) sysroot: Option<PathBuf>,
    /// Read the host that was captured into FILE, a tar or tar.gz; - is standard input
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) from: Option<PathBuf>,
    /// Do not look for who holds the regions
    #[arg(long, global = true)]
    pub(super) no_occupancy: bool,
    /// When to use colours; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    pub(super) color: When,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the EGM regions, one a line
    #[command(visible_alias = "ls", after_help = columns_help())]
    List(ListArgs),
    /// Show everything known about regions or GPUs
    Show(ShowArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ListArgs {
    /// Show these columns; +LIST shows them beside the default ones
    #[arg(short, long, value_name = "LIST")]
    pub(super) output: Option<String>,
    /// Show all columns
    #[arg(short = 'O', long, conflicts_with = "output")]
    pub(super) output_all: bool,
    /// Show sizes in bytes
    #[arg(short, long)]
    pub(super) bytes: bool,
    /// Leave out the header
    #[arg(short, long)]
    pub(super) noheadings: bool,
    /// One blank between columns; blanks in values are escaped
    #[arg(short, long, group = "format")]
    pub(super) raw: bool,
    /// NAME="value" pairs, for shells
    #[arg(short = 'P', long, group = "format")]
    pub(super) pairs: bool,
    /// JSON (egm-probe.list/1): every field whatever is chosen, sizes in bytes
    #[arg(short = 'J', long, group = "format")]
    pub(super) json: bool,
    /// List the columns there are, and exit
    #[arg(short = 'H', long)]
    pub(super) list_columns: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Regions, as egm4 or /dev/egm4; without any region or GPU, all regions
    #[arg(value_name = "REGION", value_parser = parse_region)]
    pub(super) regions: Vec<RegionName>,
    /// GPUs, as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS")]
    pub(super) gpus: Vec<PciAddress>,
    /// JSON (egm-probe.show/1)
    #[arg(short = 'J', long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

/// The columns, from the table that makes them.
fn columns_help() -> String {
    let mut help = b"Columns:\n".to_vec();
    // Writing to a vector cannot fail.
    let _ = table::write_columns(&mut help, "  ");
    String::from_utf8_lossy(&help).trim_end().to_owned()
}

fn parse_region(text: &str) -> Result<RegionName, BadRegionName> {
    text.strip_prefix("/dev/").unwrap_or(text).parse()
}
