//! Basic types: addresses, sizes, lists and names. They are independent of files, hosts and
//! domains.

mod bytes;
mod device_number;
pub(crate) mod glob;
mod id_list;
mod moment;
mod named;
mod node_id;
pub(crate) mod numbers;
mod pci_address;
mod region_name;
pub(crate) mod shell;
pub(crate) mod text;

pub use bytes::{BadSize, Bytes, SIZE_STEP, parse_libvirt, parse_option};
pub use device_number::{BadDeviceNumber, DeviceNumber};
pub use id_list::{BadList, IdList};
pub use moment::Moment;
pub(crate) use named::named;
pub use node_id::NodeId;
pub use pci_address::{BadAddress, PciAddress};
pub use region_name::{BadRegionName, RegionName};
