//! What passes between the rooms as data: element types, packed weight layouts, the step list of a program.
//!
//! Everything here is plain data with no behaviour beyond describing and checking itself. It depends on no other
//! crate of ours, names no instruction set, opens no file and starts no thread. `codegen` writes these types, `runtime`
//! reads them; a change here is a change of the contract between the two.

pub mod access;
pub mod artifact;
pub mod block;
pub mod dtype;
pub mod extent;
pub mod panel;
pub mod program;
pub mod q8;
pub mod reach;
pub mod rope;
pub mod vocabulary;

pub use access::{Access, Indirect};
pub use block::BlockFormat;
pub use dtype::DType;
pub use extent::{Bounds, Extent, Sizes, Sym};
pub use panel::{PANEL_WIDTH, PanelLayout};
pub use reach::{Over, Reach, Touch};
pub use rope::{RopeScaling, RopeTable};
