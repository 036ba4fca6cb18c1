//! EGM regions, GPUs and NUMA nodes of a host, and how they belong together.

mod accounts;
mod bars;
mod bus;
mod container;
pub(crate) mod device_links;
mod device_node;
mod function;
mod gpu;
pub(crate) mod iommufd;
mod lookup;
mod needs;
mod numa;
mod numa_reader;
mod own_nodes;
pub(crate) mod pci_names;
mod pcie_link;
mod placement;
mod region;

mod scan;
mod shape;
pub(crate) mod sysfs;

pub(crate) use accounts::Accounts;
pub use bars::Bar;
pub(crate) use container::{MARKS, has_pid_namespace};
pub(crate) use device_node::{Access, dev_path};
pub use device_node::{Device, Permissions};
pub(crate) use gpu::is_passthrough;
pub use gpu::{Driver, Gpu, GpuNode};
pub use lookup::NotFound;
pub(crate) use lookup::no_egm;
pub use needs::Needs;
pub use numa::{NodeKind, NumaNode, NumaTopology};
pub(crate) use numa_reader::parse_meminfo;
pub use pcie_link::{LinkSpeed, PcieLink};
pub use placement::NodeSource;
pub use region::Region;

pub use scan::{Class, Host};
pub use shape::{GpuSource, Shape};
